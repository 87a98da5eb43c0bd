package main

import (
	"flag"
	"fmt"
	"os"
	"runtime/debug"
	"time"
)

func main() {
	s := settings{}
	flag.Uint64Var(&s.seed, "seed", 1, "first `seed`")
	flag.IntVar(&s.seeds, "seeds", 1, "`number` of seeds")
	flag.DurationVar(&s.length, "time", 10*time.Minute, "simulated `time` for each seed")
	flag.IntVar(&s.workers, "workers", 1, "`number` of processes")
	flag.StringVar((*string)(&s.bug), "bug", "", "plant the bug with this `name`")
	flag.BoolVar(&s.bugs, "bugs", false, "plant one bug after the other and search until it is found")
	flag.BoolVar(&s.worker, "worker", false, "write reports as JSON, for another process of this program")
	flag.Parse()
	debug.SetGCPercent(800) // the state is small, and garbage plenty
	if err := s.run(os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}
