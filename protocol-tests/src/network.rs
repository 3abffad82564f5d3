//! Networks: VPC, DNS, slow and broken links, HTTP proxies.

pub mod dns;
pub mod line;
pub mod link;
pub mod proxy;
pub mod vpc;
