//! Tests: the tables of cases, Python's own reader beside the parser, and random bytes.

mod botocore;
mod cache;
mod cases;
mod chain;
mod corpus;
mod dates;
mod errors;
mod files;
mod paths;
mod python;
mod random;
mod text;
mod written;
