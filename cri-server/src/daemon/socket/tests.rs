use super::*;

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path)
        .expect("it exists")
        .permissions()
        .mode()
        & 0o7777
}

#[tokio::test]
async fn the_socket_and_its_directory_get_their_modes() {
    let dir = dir();
    let path = dir.path().join("deep/er/davit-cri.sock");
    let _bound = bind(&path).await.expect("bound");
    assert_eq!(mode(&path), SOCKET_MODE);
    assert_eq!(mode(path.parent().expect("a parent")), DIRECTORY_MODE);
}

#[tokio::test]
async fn a_path_longer_than_sun_path_works() {
    let dir = dir();
    let path = dir.path().join("d".repeat(200)).join("davit-cri.sock");
    let (_listener, bound) = bind(&path).await.expect("bound");
    assert!(
        fs::symlink_metadata(&path)
            .expect("it exists")
            .file_type()
            .is_socket()
    );
    drop(bound);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_stale_socket_is_replaced() {
    let dir = dir();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    assert!(path.exists());
    let _bound = bind(&path).await.expect("replaced");
    UnixStream::connect(&path).await.expect("somebody listens");
}

#[tokio::test]
async fn a_live_socket_is_left_alone() {
    let dir = dir();
    let path = dir.path().join("s");
    let _other = std::os::unix::net::UnixListener::bind(&path).expect("bind");
    let before = identity(&path).expect("it exists");
    assert!(matches!(bind(&path).await, Err(Error::InUse { .. })));
    assert_eq!(identity(&path).expect("it exists"), before);
}

#[tokio::test]
async fn what_is_no_socket_is_never_replaced() {
    let dir = dir();
    let path = dir.path().join("precious");
    fs::write(&path, "data").expect("write");
    assert!(matches!(bind(&path).await, Err(Error::NotASocket { .. })));
    assert_eq!(fs::read_to_string(&path).expect("still there"), "data");
}

#[tokio::test]
async fn only_its_own_socket_is_removed_at_the_end() {
    let dir = dir();
    let path = dir.path().join("s");
    let (_listener, bound) = bind(&path).await.expect("bound");
    fs::remove_file(&path).expect("removed by somebody");
    let _other = std::os::unix::net::UnixListener::bind(&path).expect("bound by somebody");
    drop(bound);
    assert!(path.exists());
}

/// Both see the same stale socket; exactly one may win.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_that_start_together_one_gets_the_socket() {
    let dir = dir();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("bind"));
    let tasks: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn({
                let path = path.clone();
                async move { bind(&path).await }
            })
        })
        .collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no panic"));
    }
    assert_eq!(outcomes.iter().filter(|o| o.is_ok()).count(), 1);
    assert!(
        outcomes
            .iter()
            .any(|o| matches!(o, Err(Error::InUse { .. })))
    );
}
