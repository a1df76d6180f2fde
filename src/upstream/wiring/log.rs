//! What the log says of backends.

use super::*;

/// Log lines of this thread.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_backend_that_goes_and_comes_back_is_logged_once_each() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    local(async {
        let (socket, address) = unheard();
        let upstream = pool(vec![ws(address)], None);
        for _ in 0..3 {
            error(open(&upstream, plain()).await);
        }
        let listener = socket.listen(16).unwrap();
        tokio::task::spawn_local(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                tokio::task::spawn_local(async move { answered(&mut tcp, GOOD).await });
            }
        });
        for _ in 0..3 {
            accepted(open(&upstream, plain()).await);
        }
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let ours: Vec<&str> = text.lines().filter(|line| line.contains("upstream=\"chat\"")).collect();
        assert_eq!(ours.len(), 2, "{text}");
        assert!(ours[0].contains("WARN") && ours[0].contains("Connection refused"), "{text}");
        assert!(ours[1].contains("INFO") && ours[1].contains("backend is back"), "{text}");
    });
}
