//! Databases: a real PostgreSQL server, as RDS runs it, and the servers beside it.

pub mod front;
pub mod ldap;
pub mod postgres;
pub mod rds;
