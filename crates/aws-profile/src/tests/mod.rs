//! Tests: the recorded cases and their mutations with botocore beside the search, Python's own
//! reader beside the parser, and random bytes.

mod botocore;
mod cache;
mod cases;
mod chain;
mod corpus;
mod dates;
mod errors;
mod files;
mod mutation;
mod paths;
mod python;
mod random;
mod text;
mod written;
