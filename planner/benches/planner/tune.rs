use crate::table::Table;
pub fn tune(table: &mut Table) {
    let cases: Vec<crate::draw::Drawn> = (0..40).map(crate::optimum::draw_one).collect();
    let optima: Option<Vec<f64>> =
        std::fs::read_to_string("/tmp/planner/optima").ok().map(|t| t.lines().filter_map(|l| l.parse().ok()).collect());
    for steps in [60, 400] {
        let from = std::time::Instant::now();
        let got: Vec<_> = cases.iter().map(|c| c.instance.priced(steps)).collect();
        let took = from.elapsed().as_secs_f64() / 40.0;
        let gap: f64 = got.iter().map(|a| a.gap()).sum::<f64>() / 40.0;
        let over: f64 =
            got.iter().zip(&cases).map(|(a, c)| a.worth / c.instance.greedy().worth - 1.0).sum::<f64>() / 40.0;
        let mut text =
            format!("steps {steps}: {took:.3} s, certified {:.2} %, over greedy {:.2} %", gap * 100.0, over * 100.0);
        if let Some(o) = &optima {
            let g: Vec<f64> = got.iter().zip(o).map(|(a, o)| 1.0 - a.worth / o).collect();
            let b: Vec<f64> = got.iter().zip(o).map(|(a, o)| a.bound / o - 1.0).collect();
            text += &format!(
                "; gap mean {:.2} worst {:.2} %; bound above {:.2} worst {:.2}",
                g.iter().sum::<f64>() / 40.0 * 100.0,
                g.iter().copied().fold(0.0, f64::max) * 100.0,
                b.iter().sum::<f64>() / 40.0 * 100.0,
                b.iter().copied().fold(0.0, f64::max) * 100.0
            );
        }
        table.note(text);
    }
}
