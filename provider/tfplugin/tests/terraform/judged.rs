//! The rules for plans and results, held against Terraform's own judgement: a provider does what breaks them or does
//! not, and both are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use serde_json::{Value as Json, json};

use crate::site::{Run, Site};

/// How many objects are judged together.
const CASES: usize = 400;

/// Numbers that are the same in every run: what fails once fails again.
struct Dice(u64);

impl Dice {
    /// Others than those of every run come from `JUDGED_SEED=n`.
    fn new(seed: u64) -> Self {
        let more = std::env::var("JUDGED_SEED").ok().and_then(|text| text.parse::<u64>().ok());
        Self(seed + 1000 * more.unwrap_or_default())
    }

    fn below(&mut self, limit: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % limit as u64).unwrap()
    }

    fn of<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    fn likely(&mut self) -> bool {
        self.below(3) > 0
    }
}

/// What a configuration says that is known only after apply.
const OPEN: &str = "${terraform_data.open.output}";

/// A text of a configuration.
fn text(dice: &mut Dice) -> Json {
    dice.of(&[json!("x"), json!("x"), json!("y"), json!(OPEN)])
}

fn texts(dice: &mut Dice) -> Json {
    (0..dice.below(3)).map(|_| text(dice)).collect()
}

/// A nested object of a configuration.
fn object(dice: &mut Dice) -> Json {
    let mut object = serde_json::Map::new();
    for name in ["in", "both"] {
        if dice.likely() {
            object.insert(name.to_owned(), text(dice));
        }
    }
    Json::Object(object)
}

fn objects(dice: &mut Dice) -> Json {
    (0..dice.below(3)).map(|_| object(dice)).collect()
}

/// What a configuration sets.
fn configuration(dice: &mut Dice) -> serde_json::Map<String, Json> {
    let mut config = serde_json::Map::new();
    let all: [(&str, fn(&mut Dice) -> Json); 13] = [
        ("text", text),
        ("both", text),
        ("hidden", text),
        ("list", texts),
        ("set", texts),
        ("map", |dice| json!({ "a": text(dice) })),
        ("any", |dice| dice.of(&[json!("x"), json!(["x"]), json!({ "a": "x" }), json!(OPEN)])),
        ("one", object),
        ("rows", objects),
        ("lines", objects),
        ("bag", objects),
        ("parts", |dice| json!({ "a": object(dice), "b": object(dice) })),
        ("row", objects),
    ];
    for (name, make) in all {
        if dice.likely() {
            config.insert(name.to_owned(), make(dice));
        }
    }
    if dice.likely() {
        config.insert("thing".to_owned(), objects(dice));
    }
    config
}

/// A value of the provider's for the same places.
fn answer(dice: &mut Dice) -> Json {
    dice.of(&[json!(null), json!({ "unknown": true }), json!("x"), json!("y"), json!("z")])
}

fn answered_object(dice: &mut Dice) -> Json {
    json!({ "in": answer(dice), "out": answer(dice), "both": answer(dice) })
}

fn answered_objects(dice: &mut Dice) -> Json {
    (0..dice.below(3)).map(|_| answered_object(dice)).collect()
}

/// A change of what is proposed.
fn edit(dice: &mut Dice) -> Json {
    let unknown = || json!({ "unknown": true });
    let whole = |dice: &mut Dice, value: Json| dice.of(&[json!(null), unknown(), value.clone(), value]);
    let field = dice.of(&["in", "out", "both"]);
    let index = dice.below(2);
    let (at, to) = match dice.below(16) {
        0 => (json!(["text"]), answer(dice)),
        1 => (json!(["out"]), answer(dice)),
        2 => (json!(["both"]), answer(dice)),
        3 => (json!(["hidden"]), answer(dice)),
        4 => (json!([dice.of(&["list", "set"]), index]), answer(dice)),
        5 => {
            let value = (0..dice.below(3)).map(|_| answer(dice)).collect();
            (json!([dice.of(&["list", "set"])]), whole(dice, value))
        }
        6 => {
            let value = json!({ "a": answer(dice) });
            (json!(["map"]), whole(dice, value))
        }
        7 => {
            let value = dice.of(&[
                json!({ "dynamic": "x" }),
                json!({ "dynamic": ["x"] }),
                json!({ "dynamic": { "a": "x" } }),
            ]);
            (json!(["any"]), whole(dice, value))
        }
        8 => (json!(["one", field]), answer(dice)),
        9 => {
            let value = answered_object(dice);
            (json!(["one"]), whole(dice, value))
        }
        10 | 11 => (json!([dice.of(&["rows", "lines", "bag", "row", "thing"]), index, field]), answer(dice)),
        12 => (json!(["parts", dice.of(&["a", "b"]), field]), answer(dice)),
        13 => {
            let value = json!({ dice.of(&["a", "c"]): answered_object(dice), "b": answered_object(dice) });
            (json!(["parts"]), whole(dice, value))
        }
        14 => {
            let value = answered_objects(dice);
            (json!([dice.of(&["rows", "lines", "bag"])]), whole(dice, value))
        }
        // Blocks are never null, nor not known.
        _ => (json!([dice.of(&["row", "thing"])]), answered_objects(dice)),
    };
    json!({ "at": at, "to": to })
}

fn edits(dice: &mut Dice) -> String {
    let some: Json = (0..=dice.below(2)).map(|_| edit(dice)).collect();
    some.to_string()
}

/// Objects by their case.
type Cases = BTreeMap<String, serde_json::Map<String, Json>>;

struct Court {
    site: Site,
}

impl Court {
    fn new() -> Self {
        Self { site: Site::new("") }
    }

    fn put(&self, cases: &Cases) {
        let mimics: serde_json::Map<String, Json> = cases
            .iter()
            .map(|(case, config)| {
                let mut config = config.clone();
                config.insert("case".to_owned(), case.as_str().into());
                (case.clone(), Json::Object(config))
            })
            .collect();
        let main = json!({ "resource": { "kitchen_mimic": mimics } });
        fs::write(self.site.path("cases.tf.json"), main.to_string()).unwrap();
    }

    /// What Terraform does not know before it is applied. It never is, where only plans are judged.
    fn open(&self, number: u32) {
        self.site.write(&format!(
            "resource \"terraform_data\" \"open\" {{\n  input = \"x\"\n  triggers_replace = {number}\n}}\n"
        ));
    }

    /// The cases that we find broken, and those that Terraform does, with what each says.
    fn judge(
        &self,
        phase: &str,
        arguments: &[&str],
    ) -> (BTreeMap<String, String>, BTreeMap<String, String>, String) {
        let judged = self.site.path("judged");
        let _ = fs::remove_file(&judged);
        let output = self.site.command(arguments).env("TFPLUGIN_JUDGED", &judged).output().unwrap();
        let text = Run::of(output).text;
        let mut ours = BTreeMap::new();
        for line in fs::read_to_string(&judged).unwrap_or_default().lines() {
            let line: Json = serde_json::from_str(line).unwrap();
            assert!(
                line["phase"] != "propose" || line["found"] == json!([]),
                "another proposal: {}",
                line["found"][0]
            );
            let found = line["found"].as_array().unwrap();
            if line["phase"] == phase && !found.is_empty() {
                ours.insert(line["case"].as_str().unwrap().to_owned(), line["found"].to_string());
            }
        }
        let mut theirs = BTreeMap::new();
        for line in text.lines().filter_map(|line| serde_json::from_str::<Json>(line).ok()) {
            let said = &line["diagnostic"];
            if said["severity"] != "error" {
                continue;
            }
            let summary = said["summary"].as_str().unwrap_or_default();
            assert!(summary.starts_with("Provider "), "another kind of error: {line}");
            let detail = said["detail"].as_str().unwrap_or_default();
            let case = detail
                .split_once("kitchen_mimic.")
                .map(|(_, rest)| rest.chars().take_while(|c| c.is_alphanumeric()).collect::<String>());
            theirs.insert(case.unwrap_or_else(|| panic!("no case: {line}")), format!("{summary}: {detail}"));
        }
        (ours, theirs, text)
    }

    /// Judges, and compares: who is broken, and how many of how many.
    fn agree(&self, phase: &str, arguments: &[&str], cases: &Cases) -> BTreeSet<String> {
        let (ours, theirs, text) = self.judge(phase, arguments);
        let mut differ = vec![];
        for (case, config) in cases {
            if ours.contains_key(case) != theirs.contains_key(case) {
                differ.push(format!(
                    "{case}: {}\n  ours:   {}\n  theirs: {}",
                    Json::Object(config.clone()),
                    ours.get(case).map_or("fine", String::as_str),
                    theirs.get(case).map_or("fine", String::as_str)
                ));
            }
        }
        let tail: String = text.chars().rev().take(2000).collect::<String>().chars().rev().collect();
        assert!(
            differ.is_empty(),
            "{phase}: {} of {} differ:\n{}",
            differ.len(),
            cases.len(),
            differ.join("\n")
        );
        // A test in which nothing is broken, or everything, shows nothing.
        let broken = theirs.len();
        assert!(
            broken * 10 > cases.len() && broken * 10 < cases.len() * 9,
            "{broken} of {}:\n{tail}",
            cases.len()
        );
        theirs.into_keys().collect()
    }
}

fn cases(dice: &mut Dice, edited: Option<&str>) -> Cases {
    let case = |n: usize| {
        let mut config = configuration(dice);
        if let Some(name) = edited {
            config.insert(name.to_owned(), edits(dice).into());
        }
        (format!("c{n}"), config)
    };
    (0..CASES).map(case).collect()
}

const PLAN: [&str; 3] = ["plan", "-input=false", "-json"];
const APPLY: [&str; 4] = ["apply", "-auto-approve", "-input=false", "-json"];

#[test]
fn terraform_refuses_the_plans_that_we_do() {
    let court = Court::new();
    let dice = &mut Dice::new(1);
    court.open(1);
    let new = cases(dice, Some("plan"));
    court.put(&new);
    court.agree("plan", &PLAN, &new);

    // The same of objects that exist.
    court.put(&cases(dice, None));
    court.site.apply();
    court.open(2);
    let changed = cases(dice, Some("plan"));
    court.put(&changed);
    court.agree("plan", &PLAN, &changed);
}

#[test]
fn terraform_refuses_the_results_that_we_do() {
    let court = Court::new();
    let dice = &mut Dice::new(2);
    court.open(1);
    let new = cases(dice, Some("result"));
    court.put(&new);
    court.agree("apply", &APPLY, &new);

    // Objects whose results were refused exist, and are changed all the same.
    court.open(2);
    let changed = cases(dice, Some("result"));
    court.put(&changed);
    court.agree("apply", &APPLY, &changed);
}
