//! Addresses as messages show them. Pure.

use url::Url;

/// An address that is safe to print: no user, query or fragment.
pub fn printable(url: &Url) -> String {
    let mut url = url.clone();
    // These fail only for addresses without a host, which have no user either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_query(None);
    url.set_fragment(None);
    url.to_string()
}
