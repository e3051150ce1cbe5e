//! Private servers that tests start and that end with them.

pub(crate) mod postgres;
