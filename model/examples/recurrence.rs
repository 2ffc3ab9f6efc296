//! Prints how the last run of each job in the given folders was told: `cargo run --release --example recurrence
//! -p foretide-model -- DIR…`.

fn main() -> Result<(), foretide_model::ModelError> {
    for directory in std::env::args().skip(1) {
        let report = foretide_model::recurrence::evaluate_recurrence(std::path::Path::new(&directory), 1)?;
        print!("{}", report.table());
        for job in &report.jobs {
            println!("{} by {}:", job.job, if job.ranked { "the learned ranker" } else { "rules" });
            job.reasons.iter().for_each(|r| println!("  {r}"));
        }
    }
    Ok(())
}
