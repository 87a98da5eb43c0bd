package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// settings are the flags of the command.
type settings struct {
	seed    uint64
	seeds   int
	length  time.Duration
	workers int
	bug     bug
	bugs    bool
	worker  bool
}

// errViolated is returned when a run violates an invariant.
var errViolated = errors.New("an invariant does not hold")

func (s settings) run(out io.Writer) error {
	switch {
	case s.worker:
		return s.report(json.NewEncoder(out))
	case s.bugs:
		return s.hunt(out)
	}
	began := time.Now()
	reports, err := s.collect()
	if err != nil {
		return err
	}
	return s.summarize(out, reports, time.Since(began))
}

// report runs all seeds, one after the other, and writes a report for each.
func (s settings) report(to *json.Encoder) error {
	for i := range s.seeds {
		if err := to.Encode(simulate(s.seed+uint64(i), s.bug, s.length)); err != nil {
			return err
		}
	}
	return nil
}

// collect shares the seeds among processes of this program: the random numbers of a run belong to a process.
func (s settings) collect() ([]report, error) {
	results := make([][]report, s.workers)
	var g errgroup.Group
	for i := range s.workers {
		share := s
		share.seeds = s.seeds*(i+1)/s.workers - s.seeds*i/s.workers
		share.seed = s.seed + uint64(s.seeds*i/s.workers)
		g.Go(func() (err error) {
			results[i], err = share.spawn()
			return err
		})
	}
	err := g.Wait()
	return slices.Concat(results...), err
}

func (s settings) spawn() ([]report, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(program, "-worker", "-seed", fmt.Sprint(s.seed), "-seeds", fmt.Sprint(s.seeds),
		"-time", s.length.String(), "-bug", string(s.bug))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("worker from seed %d on: %w", s.seed, err)
	}
	var reports []report
	for decoder := json.NewDecoder(strings.NewReader(string(out))); decoder.More(); {
		var r report
		if err := decoder.Decode(&r); err != nil {
			return nil, fmt.Errorf("worker from seed %d on: %w", s.seed, err)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

// replay is the command that repeats a run.
func (s settings) replay(seed uint64) string {
	text := fmt.Sprintf("go run ./e2e/sim -seed %d -time %v", seed, s.length)
	if s.bug != "" {
		text += " -bug " + string(s.bug)
	}
	return text
}

func (s settings) summarize(out io.Writer, reports []report, took time.Duration) error {
	total := report{Faults: map[string]int{}}
	broken := 0
	for _, r := range reports {
		total.Simulated += r.Simulated
		total.Operations += r.Operations
		for name, n := range r.Faults {
			total.Faults[name] += n
		}
		if r.Broken != "" {
			broken++
			fmt.Fprintf(out, "seed %d: %s\n  replay: %s\n", r.Seed, r.Broken, s.replay(r.Seed))
		}
	}
	fmt.Fprintf(out, "simulated %v, seeds %d to %d, %.0f times real time: %d operations, %s\n", total.Simulated.Round(time.Second),
		s.seed, s.seed+uint64(s.seeds)-1, total.Simulated.Seconds()/took.Seconds(), total.Operations, faultText(total.Faults))
	if broken > 0 {
		return fmt.Errorf("%w: %d of %d seeds", errViolated, broken, len(reports))
	}
	return nil
}

// faultText lists faults by kind.
func faultText(faults map[string]int) string {
	sum, parts := 0, []string{}
	for _, name := range slices.Sorted(maps.Keys(faults)) {
		sum += faults[name]
		parts = append(parts, fmt.Sprintf("%s %d", name, faults[name]))
	}
	return fmt.Sprintf("%d faults (%s)", sum, strings.Join(parts, ", "))
}

// huntLimit is the simulated time within which a planted bug must be found.
const huntLimit = time.Hour

// hunt plants one bug after the other, and searches seeds until it is found.
func (s settings) hunt(out io.Writer) error {
	missed := 0
	for _, b := range bugs() {
		began := time.Now()
		r, searched := search(b.name, s.seed, s.length)
		found, _, _ := strings.Cut(r.Broken, "\n")
		if !r.finds() {
			missed++
			found = "NOT FOUND " + found
		}
		fmt.Fprintf(out, "%-15s after %8v, in seed %d, %.1fs: %s\n    %s\n", b.name, searched.Round(time.Second), r.Seed,
			time.Since(began).Seconds(), b.what, found)
	}
	if missed > 0 {
		return fmt.Errorf("%w: %d planted bugs were not found within %v", errViolated, missed, huntLimit)
	}
	return nil
}

// search runs seeds until a planted bug is found, and returns the last run, and the simulated time of all.
func search(b bug, seed uint64, length time.Duration) (r report, searched time.Duration) {
	for ; !r.finds() && searched < huntLimit; seed++ {
		r = simulate(seed, b, length)
		searched += r.Simulated
	}
	return r, searched
}
