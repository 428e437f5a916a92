//! The keys of `[http]` about HTTPS.

use super::Reader;
use crate::http::tls::TlsFiles;

impl Reader<'_> {
    /// Certificate and key, if HTTPS is to be served.
    pub(super) fn http_tls(&mut self, public_url: Option<&str>) -> Option<TlsFiles> {
        match (self.path("http", "certificate"), self.path("http", "key")) {
            (Some(certificate), Some(key)) => {
                if public_url.is_some_and(|url| url.starts_with("http:")) {
                    self.warnings.push(
                        "[http] public_url begins with http:, but HTTPS is served ([http] certificate)"
                            .to_owned(),
                    );
                }
                Some(TlsFiles { certificate, key })
            }
            (None, None) => None,
            (given, _) => {
                let key = if given.is_some() { "key" } else { "certificate" };
                self.fault("http", key, "`certificate` and `key` are given together or not at all");
                None
            }
        }
    }
}
