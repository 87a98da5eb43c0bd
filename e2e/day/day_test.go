package day

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/internal/invariant"
)

var (
	firstSeed = flag.Uint64("day-seed", 1, "first seed")
	seeds     = flag.Int("day-seeds", 1, "how many seeds")
	length    = flag.Duration("day-length", 0, "simulated time for each seed; 0 is 20 minutes, or two with the race detector")
	allBugs   = flag.Bool("day-bugs", false, "search all planted bugs, not only the quick ones")
)

// slow says that this build checks for races, which makes a day six times as long.
const slow = invariant.Enabled

func dayLength() time.Duration {
	switch {
	case *length > 0:
		return *length
	case slow:
		return 2 * time.Minute
	default:
		return 20 * time.Minute
	}
}

// TestDay_HoldsTheInvariants is the day itself.
func TestDay_HoldsTheInvariants(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			r := simulate(t, seed, "", dayLength())
			t.Logf("%d steps, %d processes", r.steps, r.processes)
			if r.broken != "" {
				t.Errorf("%s\nreplay: go test ./e2e/day -run TestDay_Holds -day-seed %d -day-length %s", r.broken, seed, dayLength())
			}
			if least := int(dayLength().Minutes()); r.processes < least {
				t.Errorf("%d processes in %s say nothing", r.processes, dayLength())
			}
		})
	}
}

// TestDay_FindsPlantedBugs shows that the checks are able to fail.
func TestDay_FindsPlantedBugs(t *testing.T) {
	if slow {
		t.Skip("with the race detector this takes minutes; make test searches planted bugs without it")
	}
	for _, b := range bugs() {
		if !b.quick && !*allBugs {
			continue
		}
		t.Run(string(b.name), func(t *testing.T) {
			var r result
			for seed := uint64(1); r.broken == "" && seed <= searches; seed++ {
				r = simulate(t, seed, b.name, searched)
			}
			if r.broken == "" {
				t.Errorf("%s: not found within %d times %s", b.what, searches, searched)
			}
			first, _, _ := strings.Cut(r.broken, "\n")
			t.Log(first)
		})
	}
}

func TestSchedule_OfASeedIsAlwaysTheSame(t *testing.T) {
	texts := func(seed uint64) (all []string) {
		for _, s := range newSchedule(seed, 24*time.Hour) {
			all = append(all, fmt.Sprint(s.at, " ", s.what))
		}
		return all
	}
	if once, again := texts(1), texts(1); !slices.Equal(once, again) {
		t.Errorf("the schedules of one seed have %d and %d steps, and differ", len(once), len(again))
	}
	if slices.Equal(texts(1), texts(2)) {
		t.Error("two seeds have the same schedule")
	}
}

// result is how a day went.
type result struct {
	broken           string // what did not hold, or ""
	steps, processes int
}

// simulate runs a day.
func simulate(t *testing.T, seed uint64, planted bug, length time.Duration) (r result) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // there is plenty of garbage, and little else
	inBubble(t, func(t *testing.T) {
		w := newWorld(t, seed, planted)
		steps := newSchedule(seed, length)
		n := &nemesis{world: w, power: rand.New(rand.NewPCG(seed, 3))}
		n.follow()
		n.run(steps)
		n.unfollow()
		r.steps, r.processes = len(steps), w.books.count()
		if v := w.violations(); len(v) > 0 {
			r.broken = fmt.Sprintf("%s\nwhat happened last:\n%v\nwhat the daemons said last:\n%v", strings.Join(v, "\n"), w.did, w.said)
		}
	})
	return r
}
