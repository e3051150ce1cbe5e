//! Integration tests against real servers; one binary, so that the crate is linked once.

mod postgres;
mod servers;
