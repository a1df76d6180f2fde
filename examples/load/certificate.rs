//! A throwaway certificate for a proxy under test.
use crate::options::Certificate;
use rcgen::{CertificateParams, KeyPair};
use std::{error::Error, fs, os::unix::fs::PermissionsExt};

pub(crate) fn write(options: &Certificate) -> Result<(), Box<dyn Error>> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let certificate = CertificateParams::new(names)?.self_signed(&key)?.pem();
    fs::create_dir_all(&options.folder)?;
    fs::write(options.folder.join("cert.pem"), &certificate)?;
    for (name, text) in [("key.pem", key.serialize_pem()), ("both.pem", certificate + &key.serialize_pem())] {
        let path = options.folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}
