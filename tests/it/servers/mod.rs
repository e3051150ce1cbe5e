//! Real servers, started privately: each ends with the value that stands for it.

pub(crate) mod bus;
pub(crate) mod neo4j;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod s3;
