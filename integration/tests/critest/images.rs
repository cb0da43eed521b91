//! The images that the specs name, made of Debian's programs under the names of the genuine ones.

use std::path::Path;

use integration::bin;
use integration::image::{Layer, TestImage};
use integration::peer::Containerd;
use integration::registry::Registry;
use serde_json::json;

/// The registries that their names begin with.
pub(crate) const HOSTS: [&str; 4] = ["registry.k8s.io", "gcr.io", "k8s.gcr.io", "public.ecr.aws"];

/// The images that containers are made of, with their names.
fn programs() -> Vec<(TestImage, String)> {
    let e2e = |name: &str| format!("registry.k8s.io/e2e-test-images/{name}");
    let tools = |name: &str| format!("gcr.io/k8s-staging-cri-tools/{name}");
    vec![
        (busybox(), e2e("busybox:1.29-2")),
        (nginx(80, &["nginx"]), e2e("nginx:1.14-2")),
        (
            // The log must name it.
            nginx(80, &["sh", "-c", "echo httpd; exec nginx"]),
            e2e("httpd:2.4.39-4"),
        ),
        (
            nginx(12003, &["nginx"]),
            tools("hostnet-nginx-amd64:latest"),
        ),
        (no_new_privs(), e2e("nonewprivs:1.3")),
        (
            predefined_group(),
            tools("test-image-predefined-group:latest"),
        ),
    ]
}

/// The images that are only pulled, listed and removed.
fn stored() -> Vec<(TestImage, String)> {
    let tools = |name: &str| format!("gcr.io/k8s-staging-cri-tools/{name}");
    let one = |id: &str| TestImage::busybox().with_files(&[("id", id.as_bytes())]);
    let user = |user: &str| TestImage::busybox().with_config("User", json!(user));
    let pause = || TestImage::busybox().with_config("Cmd", json!(["/bin/sleep", "1000000"]));
    vec![
        (one("latest"), tools("test-image-latest:latest")),
        (one("tag"), tools("test-image-tag:test")),
        (one("all"), tools("test-image-tag:all")),
        (one("1"), tools("test-image-1:latest")),
        (one("2"), tools("test-image-2:latest")),
        (one("3"), tools("test-image-3:latest")),
        (one("tags"), tools("test-image-tags:1")),
        (one("tags"), tools("test-image-tags:2")),
        (one("tags"), tools("test-image-tags:3")),
        (user("1002"), tools("test-image-user-uid:latest")),
        (user("www-data"), tools("test-image-user-username:latest")),
        (user("1003:1004"), tools("test-image-user-uid-group:latest")),
        (
            user("www-data:1004"),
            tools("test-image-user-username-group:latest"),
        ),
        (pause(), "registry.k8s.io/pause:3.9".to_owned()),
        (pause(), "k8s.gcr.io/pause:3.9".to_owned()),
    ]
}

/// Puts all of them where a mirror of their registries finds them. Only the images with a digest in their name are
/// missing: nobody can make those.
pub(crate) fn push(registry: &Registry) {
    for (image, name) in programs().into_iter().chain(stored()) {
        let (_, name) = name.split_once('/').unwrap();
        let _reference: String = registry.push(&image, name);
    }
}

/// Makes those that containers are made of known, so that nothing is pulled.
pub(crate) fn import(containerd: &Containerd) {
    // A spec wants to see no process of the name "sleep" in its pod, whose first process is the sandbox's.
    let sandbox = TestImage::busybox().with_config("Cmd", json!(["/bin/tail", "-f", "/dev/null"]));
    containerd.import(&sandbox.named("davit.test/pause:1"));
    for (image, name) in programs() {
        containerd.import(&image.named(&name));
    }
}

/// A user who is in a group of the image.
fn predefined_group() -> TestImage {
    TestImage::busybox()
        .with_files(&[
            (
                "etc/passwd",
                b"root:x:0:0:root:/root:/bin/sh\ndefault-user:x:1000:1000::/home:/bin/sh\n",
            ),
            (
                "etc/group",
                b"root:x:0:\ndefault-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n",
            ),
        ])
        .with_config("User", json!("1000"))
}

/// busybox, and two programs that Debian's has no applet for.
fn busybox() -> TestImage {
    let mut layer = Layer::new();
    for program in ["pgrep", "ipcs"] {
        add(&mut layer, program, 0o755);
    }
    // A spec masks it: behind a link it would be busybox that is masked.
    let busybox = std::fs::read("/bin/busybox").unwrap();
    layer.file("bin/ls", 0o755, &busybox);
    // The static busybox's shell runs its own `ls`, not the masked file.
    add(&mut layer, "busybox-dynamic", 0o755);
    layer.link("bin/sh", "busybox-dynamic");
    TestImage::busybox().with_layer(layer.finish())
}

fn nginx(port: u16, command: &[&str]) -> TestImage {
    let mut layer = Layer::new();
    for dir in [
        "etc/nginx",
        "run",
        "usr/share",
        "usr/share/nginx",
        "usr/share/nginx/html",
        "var/run",
        "var/lib",
        "var/lib/nginx",
        "var/log",
        "var/log/nginx",
    ] {
        layer.dir(dir, 0o755);
    }
    add(&mut layer, "nginx", 0o755);
    let config = format!(
        "daemon off;\npid /var/run/nginx.pid;\nerror_log stderr;\nuser nobody nogroup;\nevents {{}}\n\
         http {{ access_log off; server {{ listen {port}; root /usr/share/nginx/html; }} }}\n"
    );
    layer.file("etc/nginx/nginx.conf", 0o644, config.as_bytes());
    let page = b"<title>Welcome to nginx!</title>\n";
    layer.file("usr/share/nginx/html/index.html", 0o644, page);
    TestImage::busybox()
        .with_layer(layer.finish())
        .with_config("Cmd", json!(command))
}

/// A program that is set-user-id root and tells its effective user.
fn no_new_privs() -> TestImage {
    let mut layer = Layer::new();
    layer.dir("suid", 0o755);
    layer.program("suid/id", 0o4755, Path::new("/usr/bin/id"));
    let script = r#"echo "Effective uid: $(/suid/id -u)""#;
    TestImage::busybox()
        .with_layer(layer.finish())
        .with_config("Cmd", json!(["/bin/sh", "-c", script]))
}

/// A program of this machine, in /bin.
fn add(layer: &mut Layer, program: &str, mode: u32) {
    let path = bin::genuine(program).unwrap_or_else(|| panic!("{program} is not installed"));
    layer.program(&format!("bin/{program}"), mode, &path);
}
