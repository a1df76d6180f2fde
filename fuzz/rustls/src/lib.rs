//! rustls with *ring* under the name of AWS-LC, which cannot be built with a sanitizer without further tools.
pub use rustls::*;

pub mod crypto {
    pub use rustls::crypto::ring as aws_lc_rs;
    pub use rustls::crypto::*;
}
