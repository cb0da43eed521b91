//! Exec, attach and port-forward with the genuine crictl, over SPDY and over WebSocket.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use common::{DEADLINE, Daemon, Dirs, image, pods_can_run};
use proto::davit::v1 as davit;
use proto::runtime::v1::runtime_service_client::RuntimeServiceClient;
use proto::runtime::v1::*;
use tonic::transport::Channel;
use tonic::{Code, Status};

const IMAGE: &str = "localhost/busybox:1";
const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// A daemon with a pod on the host's network.
struct Node {
    daemon: Daemon,
    client: RuntimeServiceClient<Channel>,
    pod_id: String,
    crictl: PathBuf,
}

/// crictl of the tool cache. Without it the test says so, and with MUST_WORK=1 it fails.
fn crictl() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").unwrap_or_default();
    let path = PathBuf::from(home).join(".cache/davit/tools/bin/crictl");
    if path.is_file() {
        return Some(path);
    }
    assert!(
        std::env::var_os("MUST_WORK").is_none(),
        "crictl is missing: cargo xtask tools"
    );
    eprintln!("skipped: crictl is missing: cargo xtask tools");
    None
}

fn host_network() -> NamespaceOption {
    NamespaceOption {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
        ..Default::default()
    }
}

fn pod() -> PodSandboxConfig {
    PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: "p".into(),
            uid: "u".into(),
            namespace: "n".into(),
            attempt: 0,
        }),
        linux: Some(LinuxPodSandboxConfig {
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(host_network()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A container that runs `script`.
fn container(script: &str) -> ContainerConfig {
    ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: "c".into(),
            attempt: 0,
        }),
        image: Some(ImageSpec {
            image: IMAGE.into(),
            ..Default::default()
        }),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        linux: Some(LinuxContainerConfig {
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(host_network()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Node {
    async fn start() -> Option<Self> {
        let crictl = crictl()?;
        if !(pods_can_run() && image::can_be_made()) {
            return None;
        }
        let dirs = Dirs::new();
        let (layout, _) = image::layout(&dirs, "layout", "");
        let command = dirs.bare_command();
        let daemon = Daemon::start_with(dirs, command).await;
        let request = davit::ImportRequest {
            path: layout.to_str().expect("UTF-8").to_owned(),
            reference: IMAGE.into(),
        };
        let mut steps = daemon
            .davit()
            .await
            .import(request)
            .await
            .expect("asked")
            .into_inner();
        while steps.message().await.expect("imported").is_some() {}
        let mut client = daemon.runtime().await;
        let request = RunPodSandboxRequest {
            config: Some(pod()),
            ..Default::default()
        };
        let answer = client.run_pod_sandbox(request).await.expect("a pod");
        let pod_id = answer.into_inner().pod_sandbox_id;
        Some(Self {
            daemon,
            client,
            pod_id,
            crictl,
        })
    }

    async fn run(&mut self, config: ContainerConfig) -> String {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod_id.clone(),
            config: Some(config),
            sandbox_config: Some(pod()),
        };
        let answer = self
            .client
            .create_container(request)
            .await
            .expect("created");
        let container_id = answer.into_inner().container_id;
        let request = StartContainerRequest {
            container_id: container_id.clone(),
        };
        self.client.start_container(request).await.expect("started");
        container_id
    }

    async fn state(&mut self, id: &str) -> i32 {
        let request = ContainerStatusRequest {
            container_id: id.into(),
            verbose: false,
        };
        let answer = self
            .client
            .container_status(request)
            .await
            .expect("a status");
        answer.into_inner().status.expect("a status").state
    }

    fn crictl(&self, arguments: &[&str]) -> Command {
        let socket = format!("unix://{}", self.daemon.socket().display());
        let mut command = Command::new(&self.crictl);
        command
            .args(["-r", &socket, "-i", &socket, "-t", "30s"])
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    fn with_input(&self, arguments: &[&str], input: &[u8]) -> Output {
        let mut child = self
            .crictl(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("crictl starts");
        let mut stdin = child.stdin.take().expect("piped");
        let input = input.to_vec();
        let feeding = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().expect("crictl ended");
        feeding
            .join()
            .expect("joined")
            .expect("all of the input was taken");
        output
    }
}

/// What crictl says of the container's stdout, and whether it says `code`.
fn ended_with(output: &Output, code: i32) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    if code == 0 {
        assert!(output.status.success(), "{errors}");
    } else {
        assert!(errors.contains(&format!("exit code {code}")), "{errors}");
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_carries_streams_and_exit_codes_over_both_transports() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let id = node.run(container("exec sleep 1000")).await;
    for transport in TRANSPORTS {
        let exec = ["exec", "--transport", transport];
        let script = "echo out; echo err >&2; exit 7";
        let output = node
            .crictl(&[&exec[..], &[&id, "sh", "-c", script]].concat())
            .output()
            .expect("crictl runs");
        assert_eq!(ended_with(&output, 7), "out\n", "{transport}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("err\n"),
            "{transport}"
        );
        // More than any buffer on the way, both ways.
        let input = vec![b'x'; 20 << 20];
        let output = node.with_input(&[&exec[..], &["-i", &id, "cat"]].concat(), &input);
        assert_eq!(ended_with(&output, 0).len(), input.len(), "{transport}");
        let output = node
            .crictl(&[&exec[..], &[&id, "no-such-program"]].concat())
            .output()
            .expect("crictl runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("executable file not found"), "{errors}");
    }
}

/// crictl insists on a terminal of its own for `-t`: script(1) makes one.
#[tokio::test(flavor = "multi_thread")]
async fn exec_with_a_terminal_has_one() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let id = node.run(container("exec sleep 1000")).await;
    let (crictl, socket) = (node.crictl.display(), node.daemon.socket());
    let command = format!(
        "{crictl} -r unix://{socket} exec -i -t {id} sh -c 'test -t 0 && test -t 2 && echo $TERM; exit 5'",
        socket = socket.display()
    );
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .stdin(Stdio::null())
        .output()
        .expect("script runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("xterm\r\n") && text.contains("exit code 5"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_talks_to_the_container_and_ends_with_it() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let echo = "while read line; do [ $line = quit ] && exit 3; echo got $line; done";
    for transport in TRANSPORTS {
        let mut config = container(echo);
        config.stdin = true;
        config.metadata = Some(ContainerMetadata {
            name: transport.into(),
            attempt: 0,
        });
        let id = node.run(config).await;
        let attach = ["attach", "--transport", transport, "-i", &id];
        // The end of the input is not the end of a container without stdin_once: another client goes on.
        let mut first = node
            .crictl(&attach)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("crictl starts");
        let mut stdin = first.stdin.take().expect("piped");
        stdin.write_all(b"one\n").expect("written");
        let mut heard = [0; 8];
        first
            .stdout
            .take()
            .expect("piped")
            .read_exact(&mut heard)
            .expect("an answer");
        assert_eq!(&heard, b"got one\n", "{transport}");
        first.kill().expect("killed");
        first.wait().expect("waited for");
        drop(stdin);
        assert_eq!(
            node.state(&id).await,
            i32::from(ContainerState::ContainerRunning)
        );
        let output = node.with_input(&attach, b"two\nquit\n");
        assert_eq!(ended_with(&output, 0), "got two\n", "{transport}");
        // A container that has ended has nothing to say, which is no error.
        let output = node.crictl(&attach).output().expect("crictl runs");
        assert_eq!(ended_with(&output, 0), "", "{transport}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_to_a_terminal_survives_the_daemon() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let mut config = container(
        "test -t 0 && while read line; do [ $line = quit ] && exit 3; echo got $line; done",
    );
    (config.stdin, config.tty) = (true, true);
    let id = node.run(config).await;
    let dirs = node.daemon.kill();
    let command = dirs.bare_command();
    node.daemon = Daemon::start_with(dirs, command).await;
    let output = node.with_input(&["attach", "-i", &id], b"one\nquit\n");
    assert!(ended_with(&output, 0).contains("got one\r\n"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stdin_that_is_for_one_client_ends_with_it() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let mut config = container("cat; echo end");
    (config.stdin, config.stdin_once) = (true, true);
    let id = node.run(config).await;
    let output = node.with_input(&["attach", "-i", &id], b"text\n");
    assert_eq!(ended_with(&output, 0), "text\nend\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_over_both_transports() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = server.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for stream in server.incoming() {
            let mut stream = stream.expect("a connection");
            let mut text = String::new();
            // To the end, which is the client's half-close.
            stream.read_to_string(&mut text).expect("read");
            stream
                .write_all(format!("you said {text}").as_bytes())
                .expect("written");
        }
    });
    node.run(container("exec sleep 1000")).await;
    for transport in TRANSPORTS {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let local = free.local_addr().expect("an address").port();
        drop(free);
        let pair = format!("{local}:{port}");
        let pod = node.pod_id.clone();
        let mut crictl = node
            .crictl(&["port-forward", "--transport", transport, &pod, &pair])
            .spawn()
            .expect("crictl starts");
        for text in ["one", "two"] {
            let mut stream = connected(local);
            stream.write_all(text.as_bytes()).expect("written");
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("half closed");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).expect("read");
            assert_eq!(answer, format!("you said {text}"), "{transport}");
        }
        crictl.kill().expect("killed");
        crictl.wait().expect("waited for");
    }
}

/// A connection to a port that somebody is about to listen on.
fn connected(port: u16) -> TcpStream {
    let end = Instant::now() + DEADLINE;
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < end, "port {port}: {error}"),
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// The HTTP status line for a request with these headers.
fn answer(url: &str, headers: &str) -> String {
    let address = url.trim_start_matches("http://");
    let (address, path) = address.split_once('/').expect("a path");
    let mut stream = TcpStream::connect(address).expect("connected");
    let request = format!("POST /{path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("written");
    let mut line = [0; 12];
    stream.read_exact(&mut line).expect("a status line");
    String::from_utf8_lossy(&line).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused_with_the_codes_that_clients_know() {
    let Some(mut node) = Node::start().await else {
        return;
    };
    let id = node.run(container("exec sleep 1000")).await;
    let exec = |id: &str, tty, stderr, stdout| ExecRequest {
        container_id: id.into(),
        cmd: vec!["true".into()],
        tty,
        stdin: false,
        stdout,
        stderr,
    };
    let code = |result: Result<_, Status>| result.map(drop).expect_err("refused").code();
    for (request, wanted) in [
        (exec("", false, false, true), Code::InvalidArgument),
        (exec(&id, true, true, true), Code::InvalidArgument),
        (exec(&id, false, false, false), Code::InvalidArgument),
        (exec("nobody", false, false, true), Code::NotFound),
    ] {
        assert_eq!(code(node.client.exec(request).await), wanted);
    }
    let mut url = async || {
        let answer = node.client.exec(exec(&id, false, false, true)).await;
        answer.expect("a URL").into_inner().url
    };
    let upgrade = "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n";
    let once = url().await;
    assert_eq!(answer(&once, ""), "HTTP/1.1 400");
    assert_eq!(answer(&once, upgrade), "HTTP/1.1 404", "it was used");
    assert_eq!(answer(&url().await, upgrade), "HTTP/1.1 400");
    let unknown = format!("{upgrade}X-Stream-Protocol-Version: v9.channel.k8s.io\r\n");
    assert_eq!(answer(&url().await, &unknown), "HTTP/1.1 403");
    let known = format!("{upgrade}X-Stream-Protocol-Version: channel.k8s.io\r\n");
    assert_eq!(
        answer(&url().await.replace("/exec/", "/attach/"), &known),
        "HTTP/1.1 404"
    );
    assert_eq!(answer(&url().await, &known), "HTTP/1.1 101");
}
