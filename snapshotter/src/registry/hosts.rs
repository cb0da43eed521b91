//! Where the images of a registry come from: containerd's `hosts.toml`.
//!
//! `<dir>/<registry>/hosts.toml`, with a port as `host:5000` or `host_5000_`, or `<dir>/_default/hosts.toml`. Hosts are
//! tried in the order of the file and `server`, the registry itself, last. Read again at every pull.
//! <https://github.com/containerd/containerd/blob/main/docs/hosts.md>

use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};
use serde::Deserialize;

use super::error::RegistryError;

/// How long a connection may take to come about.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A server to ask for images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// `http` or `https`.
    pub(crate) scheme: String,
    /// `host[:port]`.
    pub(crate) authority: String,
    /// What stands before `/<repository>/…`: `/v2` as a rule.
    pub(crate) prefix: String,
    /// Whether it may be asked for what a tag means.
    pub(crate) resolve: bool,
    /// Whether it may be asked for content.
    pub(crate) pull: bool,
    /// Whether it is the registry itself and no mirror of it.
    pub(crate) upstream: bool,
    pub(crate) tls: TlsOptions,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) dial_timeout: Duration,
}

/// How to trust a host, and how to be trusted by it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct TlsOptions {
    /// Certificates of authorities, besides the system's.
    pub(crate) ca: Vec<PathBuf>,
    /// Certificates of this client, each with its key; one file may hold both.
    pub(crate) client: Vec<(PathBuf, PathBuf)>,
    /// Whether any certificate will do.
    pub(crate) skip_verify: bool,
}

/// A `hosts.toml`. Unknown keys are ignored, as containerd does.
#[derive(Deserialize)]
struct RawFile {
    server: Option<String>,
    #[serde(default)]
    host: toml::Table,
    #[serde(flatten)]
    upstream: RawHost,
}

#[derive(Deserialize)]
struct RawHost {
    capabilities: Option<Vec<String>>,
    ca: Option<OneOrMany>,
    client: Option<Clients>,
    #[serde(default)]
    skip_verify: bool,
    #[serde(default)]
    header: toml::Table,
    #[serde(default)]
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(PathBuf),
    Many(Vec<PathBuf>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Clients {
    One(PathBuf),
    Many(Vec<ClientFiles>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum ClientFiles {
    Both(PathBuf),
    Pair(Vec<PathBuf>),
}

/// The servers for `registry`, in the order in which they are asked.
pub(crate) fn hosts(registry: &str, dirs: &[PathBuf]) -> Result<Vec<Host>, RegistryError> {
    for dir in dirs {
        for name in directory_names(registry) {
            let path = dir.join(name).join("hosts.toml");
            match std::fs::read_to_string(&path) {
                Ok(text) => return parse(registry, &path, &text),
                Err(error)
                    if matches!(
                        error.kind(),
                        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                    ) => {}
                Err(error) => return Err(config_error(&path, error.to_string())),
            }
        }
    }
    Ok(vec![upstream(registry)])
}

/// The directories in which the configuration of a registry may be.
fn directory_names(registry: &str) -> Vec<String> {
    let after_bracket = registry.rfind(']').map_or(0, |bracket| bracket + 1);
    let mut names = Vec::with_capacity(3);
    if let Some(colon) = registry[after_bracket..]
        .rfind(':')
        .map(|colon| after_bracket + colon)
    {
        names.push(format!(
            "{}_{}_",
            &registry[..colon],
            &registry[colon + 1..]
        ));
    }
    names.extend([registry.to_owned(), "_default".to_owned()]);
    names
}

/// The registry itself.
fn upstream(registry: &str) -> Host {
    let authority = match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    Host {
        scheme: default_scheme(authority).to_owned(),
        authority: authority.to_owned(),
        prefix: "/v2".into(),
        resolve: true,
        pull: true,
        upstream: true,
        tls: TlsOptions::default(),
        headers: vec![],
        dial_timeout: DIAL_TIMEOUT,
    }
}

/// Plain HTTP for registries on this machine, unless they listen on the port of HTTPS.
fn default_scheme(authority: &str) -> &'static str {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, port),
        _ => (authority, ""),
    };
    let address = host
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    let local = host == "localhost" || address.is_ok_and(|address| address.is_loopback());
    if local && port != "443" {
        "http"
    } else {
        "https"
    }
}

fn parse(registry: &str, path: &Path, text: &str) -> Result<Vec<Host>, RegistryError> {
    let refused = |reason: String| config_error(path, reason);
    let file: RawFile = toml::from_str(text)
        .map_err(|error| refused(error.to_string().trim_end().replace('\n', " ")))?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut hosts = Vec::with_capacity(file.host.len() + 1);
    for (url, table) in file.host {
        let raw: RawHost = table.try_into().map_err(|error: toml::de::Error| {
            refused(format!("host {url:?}: {}", error.message()))
        })?;
        let host =
            host(&url, raw, dir).map_err(|reason| refused(format!("host {url:?}: {reason}")))?;
        hosts.push(host);
    }
    let server = match file.server {
        Some(url) => host(&url, file.upstream, dir)
            .map_err(|reason| refused(format!("server {url:?}: {reason}")))?,
        None => {
            let default = upstream(registry);
            let url = format!("{}://{}", default.scheme, default.authority);
            host(&url, file.upstream, dir).map_err(refused)?
        }
    };
    hosts.retain(|host| {
        host.authority != server.authority
            || host.scheme != server.scheme
            || host.prefix != server.prefix
    });
    hosts.push(Host {
        upstream: true,
        ..server
    });
    Ok(hosts)
}

fn host(url: &str, raw: RawHost, dir: &Path) -> Result<Host, String> {
    let with_scheme = if url.contains("://") {
        url.to_owned()
    } else {
        format!(
            "{}://{url}",
            default_scheme(url.split('/').next().unwrap_or(url))
        )
    };
    let uri: Uri = with_scheme
        .parse()
        .map_err(|error| format!("not a URL: {error}"))?;
    let scheme = uri.scheme_str().unwrap_or_default().to_owned();
    if scheme != "http" && scheme != "https" {
        return Err(format!("scheme {scheme:?} is neither http nor https"));
    }
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains('@'))
        .ok_or("no host, or a password in the URL")?;
    let path = uri.path().trim_end_matches('/');
    let prefix = if raw.override_path || path.ends_with("/v2") {
        path.to_owned()
    } else {
        format!("{path}/v2")
    };
    let capability = |name: &str| {
        raw.capabilities
            .as_ref()
            .is_none_or(|all| all.iter().any(|one| one == name))
    };
    Ok(Host {
        scheme,
        authority: authority.to_string(),
        prefix,
        resolve: capability("resolve"),
        pull: capability("pull"),
        upstream: false,
        tls: TlsOptions {
            ca: raw.ca.map(|ca| files(ca, dir)).unwrap_or_default(),
            client: raw
                .client
                .map(|client| clients(client, dir))
                .transpose()?
                .unwrap_or_default(),
            skip_verify: raw.skip_verify,
        },
        headers: headers(raw.header)?,
        dial_timeout: raw
            .dial_timeout
            .map(|text| duration(&text).ok_or(format!("dial_timeout {text:?} is not a duration")))
            .transpose()?
            .unwrap_or(DIAL_TIMEOUT),
    })
}

fn files(value: OneOrMany, dir: &Path) -> Vec<PathBuf> {
    match value {
        OneOrMany::One(path) => vec![dir.join(path)],
        OneOrMany::Many(paths) => paths.into_iter().map(|path| dir.join(path)).collect(),
    }
}

fn clients(value: Clients, dir: &Path) -> Result<Vec<(PathBuf, PathBuf)>, String> {
    let both = |path: PathBuf| (dir.join(&path), dir.join(path));
    match value {
        Clients::One(path) => Ok(vec![both(path)]),
        Clients::Many(all) => all
            .into_iter()
            .map(|files| match files {
                ClientFiles::Both(path) => Ok(both(path)),
                ClientFiles::Pair(mut pair) => match (pair.pop(), pair.pop(), pair.is_empty()) {
                    (Some(key), Some(certificate), true) if !key.as_os_str().is_empty() => {
                        Ok((dir.join(certificate), dir.join(key)))
                    }
                    (Some(_), Some(certificate), true) => Ok(both(certificate)),
                    _ => Err("client wants pairs of a certificate and a key".to_owned()),
                },
            })
            .collect(),
    }
}

fn headers(table: toml::Table) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    let mut headers = vec![];
    for (name, value) in table {
        let header: HeaderName = name
            .parse()
            .map_err(|_| format!("header {name:?} is not a header's name"))?;
        let values = match value {
            toml::Value::Array(values) => values,
            one => vec![one],
        };
        for value in values {
            let text = value
                .as_str()
                .ok_or(format!("header {name:?} is not a string"))?;
            let mut value = HeaderValue::from_str(text)
                .map_err(|_| format!("header {name:?} has a value that HTTP does not allow"))?;
            // It may be a password.
            value.set_sensitive(true);
            headers.push((header.clone(), value));
        }
    }
    Ok(headers)
}

/// `1m30s`, `500ms`: Go's spelling.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .map_or(rest.len(), |end| digits + end);
        let factor = match &rest[digits..unit_end] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        total += number * factor;
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        None
    } else {
        Duration::try_from_secs_f64(total).ok()
    }
}

fn config_error(path: &Path, reason: String) -> RegistryError {
    RegistryError::Config {
        path: path.display().to_string(),
        reason,
    }
}

#[cfg(test)]
mod tests;
