//! The table at the end.

/// Runs of each; the median counts.
const RUNS: usize = 5;

#[derive(Default)]
pub struct Table {
    rows: Vec<[String; 5]>,
}

pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Ours and the peer's in turn, so that a change of the machine's speed meets both.
pub fn alternate(mut ours: impl FnMut() -> f64, mut theirs: impl FnMut() -> f64) -> (f64, f64) {
    let pairs: Vec<_> = (0..RUNS).map(|_| (ours(), theirs())).collect();
    (median(pairs.iter().map(|pair| pair.0).collect()), median(pairs.iter().map(|pair| pair.1).collect()))
}

fn figure(value: f64) -> String {
    if value < 100.0 { format!("{value:.2}") } else { format!("{value:.0}") }
}

impl Table {
    fn add(&mut self, name: &str, ours: f64, peer: String, ratio: String, goal: String) {
        eprintln!("{name}: {} {peer} {ratio} (goal {goal})", figure(ours));
        self.rows.push([name.to_owned(), figure(ours), peer, ratio, goal]);
    }

    /// A rate: more is better, the ratio is to reach `goal`.
    pub fn row(&mut self, name: &str, peer: &str, ours: f64, theirs: f64, goal: f64) {
        let theirs_text = format!("{peer} {}", figure(theirs));
        self.add(name, ours, theirs_text, format!("{:.2}", ours / theirs), format!(">= {goal}"));
    }

    /// A rate beside a peer's, for the reader to judge.
    pub fn beside(&mut self, name: &str, peer: &str, ours: f64, theirs: f64) {
        let theirs_text = format!("{peer} {}", figure(theirs));
        self.add(name, ours, theirs_text, format!("{:.2}", ours / theirs), "-".to_owned());
    }

    /// A time: less is better.
    pub fn time(&mut self, name: &str, peer: &str, ours: f64, theirs: f64, goal: f64) {
        let theirs_text = format!("{peer} {}", figure(theirs));
        self.add(name, ours, theirs_text, format!("{:.2}", ours / theirs), format!("<= {goal}"));
    }

    /// A figure of ours alone.
    pub fn bound(&mut self, name: &str, ours: f64, goal: f64) {
        self.add(name, ours, "-".to_owned(), "-".to_owned(), format!("<= {goal}"));
    }

    pub fn print(&self) {
        println!("\n| what | ours | peer | ratio | goal |\n|-|-|-|-|-|");
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
    }
}
