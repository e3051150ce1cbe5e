//! Tests against real servers.

mod neo4j;
mod servers;
