//! The page in a real browser: somebody types, chooses with the keyboard, and sees the choice rise.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use api::v1;
use fantoccini::key::Key;
use fantoccini::{Client as Browser, ClientBuilder, Locator};

use crate::support::Up;

/// How long the page may take to show what is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// chromedriver on a port of its own choice.
struct Driver {
    child: Child,
    url: String,
}

impl Driver {
    /// `None` where there is no chromedriver or no Chromium; a panic where both are required.
    fn start() -> Option<Self> {
        let is_there = |program: &str| {
            let answer = Command::new(program).arg("--version").output();
            answer.is_ok_and(|output| output.status.success())
        };
        if !is_there("chromedriver") || !is_there("chromium") {
            assert!(
                std::env::var_os("REQUIRE_ALL").is_none(),
                "chromium and chromedriver are required"
            );
            eprintln!("left out: the page, for there is no chromium with chromedriver here");
            return None;
        }
        let mut child = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines
            .find_map(|line| {
                let line = line.unwrap();
                let (_, rest) = line.split_once("started successfully on port ")?;
                rest.trim_end_matches('.').parse::<u16>().ok()
            })
            .unwrap();
        Some(Self {
            child,
            url: format!("http://127.0.0.1:{port}"),
        })
    }

    async fn browser(&self) -> Browser {
        let capabilities = serde_json::json!({
            "goog:chromeOptions": {
                "args": ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1100,900"],
            },
        });
        let serde_json::Value::Object(capabilities) = capabilities else {
            unreachable!("it is written as an object");
        };
        ClientBuilder::new(hyper_util::client::legacy::connect::HttpConnector::new())
            .capabilities(capabilities)
            .connect(&self.url)
            .await
            .unwrap()
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn record(up: &Up, term: &str, count: u64) {
    let request = v1::RecordRequest {
        term: term.to_owned(),
        count,
        ..Default::default()
    };
    up.client().record(request).await.unwrap();
}

/// Types into the emptied field and waits until the suggestions are these.
async fn type_and_expect(browser: &Browser, text: &str, expected: &[&str]) {
    let field = browser.find(Locator::Id("q")).await.unwrap();
    field.clear().await.unwrap();
    field.send_keys(text).await.unwrap();
    let shows_expected = async {
        loop {
            let script = "return [...document.querySelectorAll('#list [role=option]')].map((item) => item.innerText.replace(/\\s+/g, ' ').trim())";
            let shown = browser.execute(script, vec![]).await.unwrap();
            if shown == serde_json::json!(expected) {
                return;
            }
            // The page paints when it is ready; this only gives it the processor.
            tokio::task::yield_now().await;
        }
    };
    let within = tokio::time::timeout(PATIENCE, shows_expected).await;
    assert!(within.is_ok(), "{text:?} does not show {expected:?}");
}

async fn press(browser: &Browser, key: Key) {
    let field = browser.find(Locator::Id("q")).await.unwrap();
    field.send_keys(&char::from(key).to_string()).await.unwrap();
}

/// An attribute of an element that is waited for. Found and read in one go: the page puts others in the place of its elements at any time.
async fn attribute(browser: &Browser, css: &str, name: &str) -> Option<String> {
    browser
        .wait()
        .at_most(PATIENCE)
        .for_element(Locator::Css(css))
        .await
        .unwrap();
    let script = "return document.querySelector(arguments[0])?.getAttribute(arguments[1])";
    let found = browser.execute(script, vec![css.into(), name.into()]);
    found.await.unwrap().as_str().map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn somebody_types_and_chooses_and_the_choice_rises() {
    let Some(driver) = Driver::start() else {
        return;
    };
    let scratch = tempfile::tempdir().unwrap();
    let up = Up::start(scratch.path(), &[]);
    for (term, count) in [("New York", 5), ("New Zealand", 4), ("Newark", 9)] {
        record(&up, term, count).await;
    }
    let page = up
        .banner
        .split_whitespace()
        .find(|word| word.starts_with("http://"))
        .unwrap();
    let browser = driver.browser().await;
    browser.goto(page).await.unwrap();

    // The space is significant: newark is not offered. Names show as they were first written, with their counts.
    type_and_expect(&browser, "new ", &["New York 5", "New Zealand 4"]).await;
    let completed = browser
        .find(Locator::Css("#option-0 .term b"))
        .await
        .unwrap();
    assert_eq!(
        completed.text().await.unwrap(),
        "York",
        "what was not typed stands out"
    );

    // The second one, with the keyboard alone, and said to screen readers.
    press(&browser, Key::Down).await;
    press(&browser, Key::Down).await;
    assert_eq!(
        attribute(&browser, "#q", "aria-activedescendant")
            .await
            .as_deref(),
        Some("option-1")
    );
    assert_eq!(
        attribute(&browser, "#option-1", "aria-selected")
            .await
            .as_deref(),
        Some("true")
    );
    press(&browser, Key::Enter).await;
    browser
        .wait()
        .at_most(PATIENCE)
        .for_element(Locator::Css("#note[data-kind=good]"))
        .await
        .unwrap();
    let said = browser.find(Locator::Id("live")).await.unwrap();
    assert!(said.html(true).await.unwrap().contains("5 times"));

    // A tie now, which the bytes decide; one more, and it is first.
    type_and_expect(&browser, "new ", &["New York 5", "New Zealand 5"]).await;
    record(&up, "NEW ZEALAND", 1).await;
    type_and_expect(&browser, "NEW Z", &["New Zealand 6"]).await;
    type_and_expect(&browser, "new ", &["New Zealand 6", "New York 5"]).await;

    for shard in 1..=3 {
        let css = format!("#shards .card:nth-child({shard})[data-state=serving]");
        assert!(attribute(&browser, &css, "class").await.is_some());
    }
    browser.close().await.unwrap();
}
