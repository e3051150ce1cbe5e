//! Integration tests: one binary, so that the library is linked once. Servers they need are started privately, below
//! `servers/`, and end with the test.

mod agent;
mod archiving;
mod chain;
mod cli;
mod continuous;
mod damage;
mod enterprise;
mod init;
mod kill;
mod neo4j;
mod neo4j_log;
mod online;
mod postgres;
mod refusals;
mod rotation;
mod roundtrip;
mod s3;
mod servers;
mod service;
mod site;
mod workshop;
