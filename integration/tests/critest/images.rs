//! The images that the specs name, made of Debian's programs under the names of the genuine ones.

use std::path::Path;

use integration::bin;
use integration::image::{Layer, TestImage};
use integration::peer::Containerd;
use serde_json::json;

/// Makes all of them known, so that nothing is pulled.
pub(crate) fn import(containerd: &Containerd) {
    let e2e = |name: &str| format!("registry.k8s.io/e2e-test-images/{name}");
    let images = [
        (busybox(), e2e("busybox:1.29-2")),
        (nginx(80, &["nginx"]), e2e("nginx:1.14-2")),
        (
            // The log must name it.
            nginx(80, &["sh", "-c", "echo httpd; exec nginx"]),
            e2e("httpd:2.4.39-4"),
        ),
        (
            nginx(12003, &["nginx"]),
            "gcr.io/k8s-staging-cri-tools/hostnet-nginx-amd64:latest".to_owned(),
        ),
        (no_new_privs(), e2e("nonewprivs:1.3")),
    ];
    // A spec wants to see no process of the name "sleep" in its pod, whose first process is the sandbox's.
    let sandbox = TestImage::busybox().with_config("Cmd", json!(["/bin/tail", "-f", "/dev/null"]));
    containerd.import(&sandbox.named("davit.test/pause:1"));
    for (image, name) in images {
        containerd.import(&image.named(&name));
    }
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
