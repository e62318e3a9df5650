//! The README's example does what it says, and is the one that stands here.

use std::error::Error;

use rhash_server::{config::Config, embed::Server, store::StoreConfig};

mod shown {
    #![expect(clippy::print_stdout, reason = "the README shows it so")]

    use rhash_client::blocking::{Client, RemoteHash};

    pub(super) fn example(address: &str) -> Result<(), rhash_client::Error> {
        let client = Client::connect(address)?; // "127.0.0.1:10080"
        let ages: RemoteHash<String, u32> = client.table("ages").open()?;
        ages.insert("ada", 36)?;
        ages.insert("grace", 85)?;
        assert_eq!(ages.get("ada")?, Some(36));
        for entry in ages.iter() {
            let (name, age) = entry?;
            println!("{name}: {age}");
        }
        ages.detach() // keeps it on the server; `close` would free it
    }
}

#[test]
fn the_readme_shows_an_example_that_runs() -> Result<(), Box<dyn Error>> {
    let readme = include_str!("../README.md");
    let (_, rest) = readme
        .split_once("```rust\n")
        .ok_or("no example in the README")?;
    let (example, _) = rest.split_once("```").ok_or("an example without an end")?;
    let here = include_str!("readme_example.rs");
    for line in example.lines().map(str::trim) {
        let line = line.strip_prefix("fn ").unwrap_or(line);
        assert!(here.contains(line), "the README has {line:?}");
    }

    let runtime = tokio::runtime::Runtime::new()?;
    let config = Config::new(StoreConfig::new(64 << 20, None));
    let server = runtime.block_on(Server::start(config))?;
    shown::example(&server.local_addr().to_string())?;
    Ok(())
}
