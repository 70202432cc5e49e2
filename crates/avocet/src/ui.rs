//! `ui`: where the hub's page is.

use anyhow::Context;
use reqwest::Url;

use crate::cli::ClientOptions;
use crate::config;

/// Prints the page's address with the caller's token behind the `#`. That part never leaves the browser, and the
/// page takes it out of the address at once.
pub fn ui(options: &ClientOptions) -> anyhow::Result<()> {
    let access = config::hub_access(options)?;
    let page = page(&access.server)?;
    println!("{page}#token={}", access.token);
    eprintln!("# whoever has this address is an admin; without the token: {page}");
    Ok(())
}

/// The page of the hub at `server`. On loopback it is plain HTTP: a browser does not know the hub's own authority.
pub fn page(server: &str) -> anyhow::Result<Url> {
    let mut url = Url::parse(server).with_context(|| format!("the hub's address `{server}` is not a URL"))?;
    let address: Option<std::net::IpAddr> =
        url.host_str().and_then(|host| host.trim_matches(['[', ']']).parse().ok());
    if address.is_some_and(|address| address.is_unspecified()) {
        // The hub listens everywhere, so here too.
        url.set_host(Some("127.0.0.1"))?;
    }
    if url.host_str() == Some("localhost")
        || address.is_some_and(|address| address.is_loopback() || address.is_unspecified())
    {
        let _ = url.set_scheme("http");
    }
    url.set_path("/ui");
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_plain_on_loopback_and_encrypted_elsewhere() {
        let page = |server| page(server).map(String::from).ok();
        assert_eq!(page("https://127.0.0.1:8080").as_deref(), Some("http://127.0.0.1:8080/ui"));
        assert_eq!(page("https://[::1]:8080").as_deref(), Some("http://[::1]:8080/ui"));
        assert_eq!(page("https://0.0.0.0:8080").as_deref(), Some("http://127.0.0.1:8080/ui"));
        assert_eq!(page("https://localhost:8080/").as_deref(), Some("http://localhost:8080/ui"));
        assert_eq!(page("https://hub.plant.example").as_deref(), Some("https://hub.plant.example/ui"));
        assert_eq!(page("nowhere"), None);
    }
}
