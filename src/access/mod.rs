//! Who may come in: addresses, and how many at a time.
mod networks;
pub mod rates;

pub use networks::{Addresses, Networks};

/// `access` of a route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AccessConfig {
    pub addresses: Addresses,
}
