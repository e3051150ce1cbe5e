//! Layer 2: where backups are kept. [`store::Store`] is the seam; everything that knows what a backup is stands above it.

pub mod store;
