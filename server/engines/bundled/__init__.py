"""What engines share whose clients run the programs of a bundle: export, the plan, the clients, the evaluator."""
