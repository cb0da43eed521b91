//! Registries with images in them: one of the tests' own, and Debian's docker-registry.
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use snapshotter::Digest;

use super::http::{Request, Response, Server};
use super::image::TestImage;
use super::{Scratch, eventually};

/// What a registry of the tests' own holds.
#[derive(Clone, Default)]
pub struct Content {
    /// By tag and by digest: media type and bytes.
    pub manifests: BTreeMap<String, (String, Vec<u8>)>,
    pub blobs: BTreeMap<String, Vec<u8>>,
}

impl Content {
    pub fn with(image: &TestImage, tag: &str) -> Content {
        let mut content = Content::default();
        content.add(image, tag);
        content
    }

    pub fn add(&mut self, image: &TestImage, tag: &str) {
        self.add_manifest(tag, image.media_type, &image.manifest);
        self.blobs.extend(
            image
                .blobs()
                .into_iter()
                .map(|(digest, bytes)| (digest.to_string(), bytes)),
        );
    }

    pub fn add_manifest(&mut self, tag: &str, media_type: &str, bytes: &[u8]) {
        for name in [tag.to_owned(), Digest::of(bytes).to_string()] {
            self.manifests
                .insert(name, (media_type.to_owned(), bytes.to_vec()));
        }
    }

    /// What an honest registry answers.
    pub fn answer(&self, request: &Request) -> Response {
        let path = request.path.split('?').next().unwrap();
        let name = path.rsplit('/').next().unwrap();
        if path.contains("/manifests/") {
            return match self.manifests.get(name) {
                Some((media_type, bytes)) => Response::new(200)
                    .header("Content-Type", media_type)
                    .body(bytes.clone()),
                None => Response::new(404).body(
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
                ),
            };
        }
        match (self.blobs.get(name), request.range_start()) {
            (None, _) => Response::new(404)
                .body(r#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown"}]}"#),
            (Some(blob), None) => Response::new(200).body(blob.clone()),
            (Some(blob), Some(start)) => {
                let range = format!("bytes {start}-{}/{}", blob.len() - 1, blob.len());
                Response::new(206)
                    .header("Content-Range", range)
                    .body(blob[start..].to_vec())
            }
        }
    }

    /// A server with this content.
    pub fn serve(self) -> Server {
        Server::start(move |request| self.answer(request))
    }

    /// A server with this content whose answers `change` may replace.
    pub fn serve_with(
        self,
        change: impl Fn(&Request, Response) -> Response + Send + Sync + 'static,
    ) -> Server {
        Server::start(move |request| change(request, self.answer(request)))
    }
}

/// Debian's docker-registry on a free port.
pub struct DockerRegistry {
    pub address: String,
    pub tls: Option<std::path::PathBuf>,
    child: Child,
    _scratch: Arc<Scratch>,
}

impl DockerRegistry {
    /// Starts it; `more` is added to the section `http` of its configuration, `auth` after that. Another test may take
    /// the free port in between: then the registry ends, and another port is tried.
    pub fn start(more: &str, auth: &str) -> DockerRegistry {
        (0..5)
            .find_map(|_| DockerRegistry::try_start(more, auth))
            .expect("a port that nobody takes")
    }

    fn try_start(more: &str, auth: &str) -> Option<DockerRegistry> {
        let scratch = Arc::new(Scratch::new());
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = format!("127.0.0.1:{port}");
        let config = scratch.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{more}{auth}",
            scratch.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::create(scratch.join("log")).unwrap();
        let mut child = Command::new("/usr/bin/docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is a Debian package");
        let mut ended = false;
        eventually("the registry's start", || {
            ended = child.try_wait().unwrap().is_some();
            ended || listens(child.id(), port)
        });
        (!ended).then(|| DockerRegistry {
            address,
            tls: None,
            child,
            _scratch: scratch,
        })
    }

    /// Pushes an image over plain HTTP.
    pub fn push(&self, repository: &str, tag: &str, image: &TestImage, auth: Option<&str>) {
        for (digest, bytes) in image.blobs() {
            self.push_blob(repository, digest, &bytes, auth);
        }
        for name in [tag.to_owned(), image.digest().to_string()] {
            self.push_manifest(repository, &name, image.media_type, &image.manifest, auth);
        }
    }

    pub fn push_manifest(
        &self,
        repository: &str,
        name: &str,
        media_type: &str,
        bytes: &[u8],
        auth: Option<&str>,
    ) {
        let path = format!("/v2/{repository}/manifests/{name}");
        let (status, _) = self.send("PUT", &path, &[("Content-Type", media_type)], bytes, auth);
        assert_eq!(status, 201, "{path}");
    }

    fn push_blob(&self, repository: &str, digest: Digest, bytes: &[u8], auth: Option<&str>) {
        let (status, head) = self.send(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
            auth,
        );
        assert_eq!(status, 202);
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("Location: "))
            .unwrap()
            .trim();
        let path = location
            .split_once(&self.address)
            .map_or(location, |(_, path)| path);
        let separator = if path.contains('?') { '&' } else { '?' };
        let (status, _) = self.send(
            "PUT",
            &format!("{path}{separator}digest={digest}"),
            &[("Content-Type", "application/octet-stream")],
            bytes,
            auth,
        );
        assert_eq!(status, 201);
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
        auth: Option<&str>,
    ) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.address,
            body.len()
        );
        for (name, value) in headers
            .iter()
            .copied()
            .chain(auth.map(|auth| ("Authorization", auth)))
        {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, answer)
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Whether this very process listens on the port, and not whoever took it first.
fn listens(pid: u32, port: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!(":{port:04X}");
    let inode = table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let listening = fields.get(1)?.ends_with(&local) && *fields.get(3)? == "0A";
        listening.then(|| format!("socket:[{}]", fields[9]))
    });
    let Some(inode) = inode else { return false };
    let fds = std::fs::read_dir(format!("/proc/{pid}/fd"));
    fds.into_iter().flatten().flatten().any(|fd| {
        std::fs::read_link(fd.path()).is_ok_and(|target| target.as_os_str() == inode.as_str())
    })
}
