//! What was planned, remembered on this machine until it is applied.
//!
//! Terraform plans once more while it applies, in another process, and demands the same result. When the
//! specification has changed in between it says that the provider has a bug. It has not, so we say what happened
//! before Terraform does. That takes knowing what was planned. Terraform 1.16 hands that back with the second plan;
//! older ones do not, hence these notes. They are a courtesy: without them, as on another machine, Terraform's own
//! check still holds.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use nixos_activator::{MachineName, derivation};
use serde::{Deserialize, Serialize};
use tfplugin::{Diagnostic, Path};

use super::model::Deployment;
use super::private::Planned;
use super::secrets;

/// How many plans of a deployment are remembered: an older one may still be saved in a file.
const REMEMBERED: usize = 16;

/// How long after a plan of a deployment Terraform may write the whole plan to its file, in seconds. A file that is
/// written later is taken for another computer's: what was planned there nobody knows here.
const WRITTEN_WITHIN: u64 = 60;

/// One plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Pin {
    /// The terraform that planned.
    terraform: Option<Process>,
    /// Where it was to save the plan.
    #[serde(default)]
    saved: Option<PathBuf>,
    /// When, in seconds since 1970.
    #[serde(default)]
    at: u64,
    #[serde(flatten)]
    planned: Planned,
}

/// A process, and not the next one with its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Process {
    id: i32,
    /// In clock ticks since the machine was booted.
    started: u64,
}

/// What the terraform that started this process is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Walk {
    /// `terraform apply`: the second plan is the last word.
    Apply(Process),
    /// `terraform apply FILE`: the only plan here is the second one.
    ApplySaved(PathBuf),
    /// Anything else, and where a plan is to be saved.
    Other(Option<Process>, Option<PathBuf>),
}

/// What was planned in the plan that this one has to repeat, if it has to: its reader has been told about that.
pub(super) fn repeated(deployment: &Deployment) -> Option<Planned> {
    let pins = remembered(&file(deployment)?);
    let is_repeated: Box<dyn Fn(&Pin) -> bool> = match walk() {
        Walk::Apply(process) => Box::new(move |pin| pin.terraform.as_ref() == Some(&process)),
        Walk::ApplySaved(saved) => {
            let written = seconds(std::fs::metadata(&saved).and_then(|found| found.modified()).ok()?);
            Box::new(move |pin| pin.is_in(&saved, written))
        }
        Walk::Other(..) => return None,
    };
    pins.into_iter().rfind(is_repeated).map(|pin| pin.planned)
}

fn remembered(file: &std::path::Path) -> Vec<Pin> {
    std::fs::read(file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// Compares a plan with the one it has to repeat, if it has to, and remembers it.
pub(super) fn check(deployment: &Deployment, now: &Planned) -> Option<Diagnostic> {
    let file = file(deployment)?;
    let mut pins = remembered(&file);
    let has_changed = |repeated: &[&Pin]| {
        let planned = repeated.last().filter(|_| !repeated.iter().any(|pin| agrees(&pin.planned, now)))?;
        Some(changed(&planned.planned, now))
    };
    let (terraform, saved) = match walk() {
        Walk::Apply(process) => {
            let own: Vec<&Pin> = pins.iter().filter(|pin| pin.terraform.as_ref() == Some(&process)).collect();
            if let Some(diagnostic) = has_changed(&own) {
                return Some(diagnostic);
            }
            (Some(process), None)
        }
        Walk::ApplySaved(saved) => {
            let written = std::fs::metadata(&saved).and_then(|found| found.modified()).ok()?;
            let written = seconds(written);
            let own: Vec<&Pin> = pins.iter().filter(|pin| pin.is_in(&saved, written)).collect();
            return has_changed(&own);
        }
        Walk::Other(process, saved) => (process, saved),
    };
    let pin = Pin { terraform, saved, at: seconds(SystemTime::now()), planned: now.clone() };
    pins.retain(|old| Pin { at: pin.at, ..old.clone() } != pin);
    pins.push(pin);
    let surplus = pins.len().saturating_sub(REMEMBERED);
    pins.drain(..surplus);
    let write = || {
        let directory = file.parent()?;
        std::fs::create_dir_all(directory).ok()?;
        let new = tempfile::NamedTempFile::new_in(directory).ok()?;
        serde_json::to_writer(&new, &pins).ok()?;
        new.persist(&file).ok()
    };
    if write().is_none() {
        tracing::debug!(file = %file.display(), "the plan is not remembered");
    }
    None
}

impl Pin {
    /// Whether it is in that file, which was written then.
    fn is_in(&self, saved: &std::path::Path, written: u64) -> bool {
        // Not every file system counts parts of seconds.
        let since = (written + 1).checked_sub(self.at);
        self.saved.as_deref() == Some(saved) && since.is_some_and(|since| since <= WRITTEN_WITHIN)
    }
}

/// Since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Compares a plan with the one it has to repeat.
pub(super) fn compare(planned: &Planned, now: &Planned) -> Option<Diagnostic> {
    (!agrees(planned, now)).then(|| changed(planned, now))
}

/// Whether everything that was planned exactly is planned the same.
fn agrees(planned: &Planned, now: &Planned) -> bool {
    let same = |name, drv| planned.drvs.get(name).is_none_or(|old| old == drv);
    now.drvs.iter().all(|(name, drv)| same(name, drv)) && changed_secret(planned, now).is_none()
}

/// The first secret that is another than was planned, with its machine.
fn changed_secret<'a>(planned: &Planned, now: &'a Planned) -> Option<(&'a MachineName, &'a str)> {
    now.secrets.iter().find_map(|(machine, prints)| {
        let old = planned.secrets.get(machine)?;
        let (name, _) =
            prints.iter().find(|(name, print)| old.get(*name).is_some_and(|old| old != *print))?;
        Some((machine, name.as_str()))
    })
}

fn changed(planned: &Planned, now: &Planned) -> Diagnostic {
    let (drvs, planned_drvs) = (&now.drvs, &planned.drvs);
    let mut text = String::new();
    for (name, now) in drvs {
        let Some(old) = planned_drvs.get(name).filter(|old| *old != now) else {
            continue;
        };
        text.push_str(&format!("\n\nMachine \"{name}\": planned {old}, now {now}."));
        let differences = derivation::differences(old, now);
        if !differences.is_empty() {
            text.push_str(&format!("\nThey differ in {}.", differences.join("; ")));
        }
    }
    if text.is_empty()
        && let Some((machine, name)) = changed_secret(planned, now)
    {
        return secrets::changed(name, Path::root().attribute("systems").key(machine.as_str()));
    }
    Diagnostic::error("The specification has changed since it was planned")
        .detail(format!(
            "What it evaluates to now is not what the plan says, so nothing was deployed. Plan again to \
             see what would be.{text}"
        ))
        .at(Path::root().attribute("systems"))
}

/// Where plans of this deployment are remembered: by its id, and before it has one by all that is asked of it. Several
/// deployments may be of one specification and the same machines, so nothing less tells them apart.
fn file(deployment: &Deployment) -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    let identity = if let Some(id) = deployment.id.known() {
        id.clone()
    } else {
        let spec = deployment.spec();
        let machines = &deployment.machines;
        format!("{} {spec:?} {machines:?}", std::env::current_dir().ok()?.display())
    };
    let name = nixos_activator::sha256(identity.as_bytes());
    Some(state.join("nixos-activator/plans").join(format!("{name}.json")))
}

fn walk() -> Walk {
    let Some(parent) = rustix::process::getppid() else {
        return Walk::Other(None, None);
    };
    let id = parent.as_raw_nonzero().get();
    let read = |name: &str| std::fs::read(format!("/proc/{id}/{name}")).unwrap_or_default();
    let process = started(&String::from_utf8_lossy(&read("stat"))).map(|started| Process { id, started });
    let command = read("cmdline");
    let words: Vec<String> =
        command.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    // Terraform itself has gone where `-chdir` says.
    let here = std::fs::read_link(format!("/proc/{id}/cwd")).unwrap_or_default();
    sort(&words, process, &here, is_plan)
}

/// Whether a file is a saved plan: a zip archive.
fn is_plan(file: &std::path::Path) -> bool {
    let mut magic = [0; 2];
    let read = std::fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && magic == *b"PK"
}

fn sort(
    words: &[String],
    process: Option<Process>,
    here: &std::path::Path,
    is_plan: impl Fn(&std::path::Path) -> bool,
) -> Walk {
    let option = |word: &String| Some(word.strip_prefix('-')?.trim_start_matches('-').to_owned());
    let saved = words.iter().zip(words.iter().skip(1).map(Some).chain([None])).find_map(|(word, next)| {
        let option = option(word)?;
        let file = option.strip_prefix("out=").map(str::to_owned);
        file.or_else(|| next.filter(|_| option == "out").cloned())
    });
    let mut words = words.iter().filter(|word| !word.is_empty());
    let program = words.next().and_then(|word| word.rsplit('/').next()).unwrap_or_default();
    let is_terraform = program.starts_with("terraform") || program.starts_with("tofu");
    // Values of options that stand alone (`-var x=y`) are no plans, so they need not be told from arguments.
    let mut plain = words.filter(|word| !word.starts_with('-'));
    let applies = is_terraform && plain.next().is_some_and(|verb| verb == "apply");
    let file = plain.map(|word| here.join(word)).find(|word| is_plan(word));
    match (process, file) {
        (_, Some(file)) if applies => Walk::ApplySaved(file),
        (Some(process), _) if applies => Walk::Apply(process),
        (process, _) => Walk::Other(process, saved.map(|file| here.join(file))),
    }
}

/// The 22nd field of `/proc/PID/stat`; the second is a name in parentheses that may have spaces in it.
fn started(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use nixos_activator::StorePath;

    use super::*;

    #[test]
    fn only_an_apply_plans_a_second_time() {
        let process = Process { id: 1, started: 2 };
        let walk = |words: &str| {
            let words: Vec<_> = words.split(' ').map(str::to_owned).collect();
            sort(&words, Some(process.clone()), std::path::Path::new("/here"), |file| {
                file == "/here/saved.plan"
            })
        };
        let saved = || PathBuf::from("/here/saved.plan");
        assert_eq!(walk("/usr/bin/terraform apply -auto-approve"), Walk::Apply(process.clone()));
        assert_eq!(walk("tofu -chdir=/x apply"), Walk::Apply(process.clone()));
        assert_eq!(walk("terraform apply -var-file x.tfvars -var a=b"), Walk::Apply(process.clone()));
        assert_eq!(walk("terraform apply -input=false saved.plan"), Walk::ApplySaved(saved()));
        for plan in [
            "terraform plan -out=saved.plan",
            "terraform plan --out=saved.plan",
            "tofu plan -out saved.plan -no-color",
        ] {
            assert_eq!(walk(plan), Walk::Other(Some(process.clone()), Some(saved())), "{plan}");
        }
        for other in ["terraform plan", "terraform plan apply", "terraform test", "sh -c apply", "bash"] {
            assert_eq!(walk(other), Walk::Other(Some(process.clone()), None), "{other}");
        }
    }

    #[test]
    fn a_plan_is_in_the_file_that_was_written_right_after_it() {
        let saved = PathBuf::from("/here/saved.plan");
        let pin = Pin { terraform: None, saved: Some(saved.clone()), at: 1000, planned: Planned::default() };
        assert!([999, 1000, 1059].iter().all(|written| pin.is_in(&saved, *written)));
        assert!(![998, 1060].iter().any(|written| pin.is_in(&saved, *written)), "one from elsewhere");
        assert!(!pin.is_in(std::path::Path::new("/here/another.plan"), 1000));
    }

    #[test]
    fn a_second_plan_must_repeat_what_was_exact() {
        let name = |text: &str| text.parse::<MachineName>().unwrap();
        let drv =
            |letter: &str| format!("/nix/store/{}-x.drv", letter.repeat(32)).parse::<StorePath>().unwrap();
        let secrets = |print: &str| {
            let of_web = BTreeMap::from([("token".to_owned(), print.to_owned())]);
            BTreeMap::from([(name("web"), of_web)])
        };
        let planned = Planned { drvs: BTreeMap::from([(name("web"), drv("a"))]), secrets: secrets("x") };
        let now = |web: &str| Planned {
            drvs: BTreeMap::from([(name("web"), drv(web)), (name("db"), drv("b"))]),
            secrets: secrets("x"),
        };
        assert_eq!(compare(&planned, &now("a")), None, "what was open before may be anything");
        let found = compare(&planned, &now("c")).unwrap();
        assert!(
            found.detail.contains("Machine \"web\": planned") && !found.detail.contains("db"),
            "{found:?}"
        );
        let with_secrets = |secrets| Planned { secrets, ..now("a") };
        assert_eq!(compare(&planned, &with_secrets(BTreeMap::new())), None);
        let found = compare(&planned, &with_secrets(secrets("y"))).unwrap();
        assert!(found.summary.contains("Secret \"token\" has changed"), "{found:?}");
        let unknown = Planned { secrets: BTreeMap::new(), ..planned };
        assert_eq!(compare(&unknown, &with_secrets(secrets("y"))), None, "a first plan does not know them");
    }

    #[test]
    fn a_process_is_known_by_its_start() {
        let stat = "42 (a b) c) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 9876 20";
        assert_eq!(started(stat), Some(9876));
        assert_eq!(started(""), None);
    }
}
