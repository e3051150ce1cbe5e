//! Integration tests: one binary, so that the library is linked once. Servers they need are started privately, below
//! `servers/`, and end with the test.

mod agent;
mod cli;
mod service;
mod servers {
    pub(crate) mod bus;
}
mod workshop;
