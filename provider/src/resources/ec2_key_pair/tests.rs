//! Key pairs whose making ended open: EC2 was asked, and no answer came. An EC2 that knows one key pair answers here, or does not.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tempfile::TempDir;
use tfplugin::testing::{Action, Applied, Harness, Stored, object};
use tfplugin::{Diagnostics, Value};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::provider::tests::configured;

const TYPE: &str = "nixos_ec2_key_pair";

/// What gets lost of the call that makes the key pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    Nothing,
    Request,
    Answer,
}

/// The public half that EC2 has, and what gets lost on the way to it.
type Ec2 = Arc<Mutex<(Option<String>, Lost)>>;

/// A Terraform, an EC2, and a directory for the private key.
struct World {
    terraform: Harness,
    ec2: Ec2,
    directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let ec2: Ec2 = Arc::new(Mutex::new((None, Lost::Nothing)));
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let ours = ec2.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answer(stream, &ours).await;
            }
        });
        let aws = object([
            ("region", "eu-west-1".into()),
            ("access_key", "test".into()),
            ("secret_key", "test".into()),
            ("max_attempts", 1i64.into()),
            ("endpoints", object([("ec2", url.into())])),
        ]);
        let terraform = configured(&object([("aws", aws)])).await;
        Self { terraform, ec2, directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> String {
        self.directory.path().join("admin.key").display().to_string()
    }

    fn config(&self) -> Value {
        object([
            ("key_name", "admin".into()),
            ("generate", object([("type", "ed25519".into())])),
            ("private_key_file", self.file().into()),
        ])
    }

    /// What is left of a create of which something got lost.
    async fn created_with(&self, lost: Lost) -> Stored {
        self.ec2.lock().unwrap().1 = lost;
        let plan = self.terraform.plan(TYPE, None, &self.config()).await.unwrap();
        let applied = self.terraform.apply(plan).await;
        self.ec2.lock().unwrap().1 = Lost::Nothing;
        assert!(applied.diagnostics.has_errors(), "{lost:?} is lost");
        let left = applied.state.expect("the state knows of it");
        assert!(left.tainted);
        self.terraform.refresh(&left).await.unwrap().expect("a refresh keeps it: there is a file to remove")
    }

    /// Plans to replace it, and does.
    async fn replaced(&self, left: &Stored) -> Applied {
        let plan = self.terraform.plan(TYPE, Some(left), &self.config()).await.unwrap();
        assert_eq!(plan.action, Action::Replace);
        self.terraform.apply(plan).await
    }

    fn public_at_ec2(&self) -> Option<String> {
        self.ec2.lock().unwrap().0.clone()
    }
}

fn summaries(diagnostics: &Diagnostics) -> String {
    diagnostics.iter().map(|one| format!("{}\n", one.summary)).collect()
}

#[tokio::test]
async fn the_file_of_a_create_that_ended_open_is_not_in_the_way_of_the_next() {
    for lost in [Lost::Request, Lost::Answer] {
        let world = World::new().await;
        let left = world.created_with(lost).await;
        let first = std::fs::read_to_string(world.file()).unwrap();
        let applied = world.replaced(&left).await;
        assert!(!applied.diagnostics.has_errors(), "{lost:?} was lost: {:#?}", applied.diagnostics);
        let stored = applied.state.unwrap();
        let public = super::file::public_half(&std::fs::read_to_string(world.file()).unwrap());
        assert_eq!(world.public_at_ec2(), public, "EC2 has the other half of what is in the file");
        assert_ne!(std::fs::read_to_string(world.file()).unwrap(), first, "a new key");
        let plan = world.terraform.plan(TYPE, Some(&stored), &world.config()).await.unwrap();
        assert_eq!(plan.action, Action::NoOp);
    }
}

#[tokio::test]
async fn nor_is_that_of_a_key_pair_that_is_made_anew_because_somebody_says_so() {
    let world = World::new().await;
    let sound = world.terraform.create(TYPE, &world.config()).await;
    // As after `terraform taint`, or a provisioner that failed.
    let applied = world.replaced(&Stored { tainted: true, ..sound }).await;
    assert!(!applied.diagnostics.has_errors(), "{:#?}", applied.diagnostics);
}

#[tokio::test]
async fn what_somebody_put_in_place_of_the_file_is_neither_removed_nor_overwritten() {
    let world = World::new().await;
    let left = world.created_with(Lost::Request).await;
    std::fs::write(world.file(), "mine").unwrap();
    let applied = world.replaced(&left).await;
    assert!(
        summaries(&applied.diagnostics).contains("The private key cannot be written"),
        "{:#?}",
        applied.diagnostics
    );
    assert_eq!(std::fs::read_to_string(world.file()).unwrap(), "mine");
    assert_eq!(world.public_at_ec2(), None);
}

#[tokio::test]
async fn destroying_what_ended_open_leaves_neither_file_nor_key_pair() {
    for lost in [Lost::Request, Lost::Answer] {
        let world = World::new().await;
        let left = world.created_with(lost).await;
        world.terraform.destroy(&left).await;
        assert!(std::fs::metadata(world.file()).is_err(), "{lost:?} was lost: the file stays behind");
        assert_eq!(world.public_at_ec2(), None);
    }
}

#[tokio::test]
async fn what_never_came_to_be_is_made_also_where_somebody_says_it_is_sound() {
    let world = World::new().await;
    let left = world.created_with(Lost::Request).await;
    let untainted = Stored { tainted: false, ..left };
    let applied = world.replaced(&untainted).await;
    assert!(!applied.diagnostics.has_errors(), "{:#?}", applied.diagnostics);
    assert!(world.public_at_ec2().is_some());
}

/// Answers one call, as EC2 does.
async fn answer(mut stream: TcpStream, ec2: &Ec2) {
    let body = body(&mut stream).await;
    let parameter = |name: &str| {
        let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let action = parameter("Action").unwrap_or_default();
    let inside = {
        let mut ec2 = ec2.lock().unwrap();
        match (action.as_str(), ec2.1) {
            ("ImportKeyPair", Lost::Request) => return,
            ("ImportKeyPair", lost) => {
                let key = parameter("PublicKeyMaterial").unwrap_or_default();
                let key = key.replace("%2B", "+").replace("%2F", "/").replace("%3D", "=");
                ec2.0 = Some(String::from_utf8(STANDARD.decode(key).unwrap()).unwrap());
                if lost == Lost::Answer {
                    return;
                }
                String::new()
            }
            ("DeleteKeyPair", _) => {
                ec2.0 = None;
                String::new()
            }
            _ => ec2.0.as_ref().map_or_else(
                || "<keySet/>".to_owned(),
                |key| {
                    format!(
                        "<keySet><item><keyPairId>key-1</keyPairId><keyName>admin</keyName><keyType>ed25519</keyType>\
                         <keyFingerprint>{}</keyFingerprint><publicKey>{key}</publicKey></item></keySet>",
                        key.len()
                    )
                },
            ),
        }
    };
    let text = format!(
        "<{action}Response xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>{inside}</{action}Response>"
    );
    let length = text.len();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
}

/// Reads a request to the end of its body.
async fn body(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut buffer = [0; 4096];
    loop {
        let length = stream.read(&mut buffer).await.unwrap();
        text.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lines = head.lines().filter_map(|line| line.split_once(": "));
        let mut lines = lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let whole = lines.next().map_or(0, |(_, length)| length.parse().unwrap());
        if body.len() >= whole || length == 0 {
            return body.to_owned();
        }
    }
}
