package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/skep-io/skep/internal/invariant"
)

// slow says that this build checks for races, which makes a simulation ten times as slow.
const slow = invariant.Enabled

func TestSimulate_HoldsTheInvariants(t *testing.T) {
	length := 2 * time.Minute
	if slow {
		length = 30 * time.Second
	}
	r := simulate(1, "", length)
	if r.Broken != "" {
		t.Errorf("%s\nreplay: %s", r.Broken, settings{length: length}.replay(1))
	}
	if least := 20 * int(length.Seconds()); r.Operations < least || len(r.Faults) == 0 {
		t.Errorf("%d operations and %d kinds of faults say nothing", r.Operations, len(r.Faults))
	}
}

func TestSimulate_RepeatsARunExactly(t *testing.T) {
	const seed, length = 2, 20 * time.Second
	once, again, other := simulate(seed, "", length), simulate(seed, "", length), simulate(seed+1, "", time.Second)
	if once.Trace != again.Trace {
		t.Errorf("two runs of seed %d differ: %s and %s", seed, once.Trace, again.Trace)
	}
	if once.Trace == other.Trace {
		t.Errorf("seeds %d and %d give the same run", seed, seed+1)
	}
}

// The others take longer; make test and make soak hunt all of them.
func TestSearch_FindsPlantedBugs(t *testing.T) {
	for _, b := range bugs() {
		if !b.quick {
			continue
		}
		t.Run(string(b.name), func(t *testing.T) {
			if r, searched := search(b.name, 1, time.Minute); !r.finds() {
				t.Errorf("%s: not found within %v, but %q", b.what, searched, r.Broken)
			}
		})
	}
}

func TestReport_AStandstillFindsNoBug(t *testing.T) {
	for broken, want := range map[string]bool{
		"": false, "I1: the history is Illegal": true, "at 2s: I2: lost": true, "at 20s: Q1: 20s after the last fault there is no leader": false,
	} {
		if got := (report{Broken: broken}).finds(); got != want {
			t.Errorf("%q: got %v, want %v", broken, got, want)
		}
	}
}

func TestSummarize_SaysHowToReplay(t *testing.T) {
	s := settings{seed: 7, seeds: 2, length: time.Minute, bug: ackEarly}
	var out strings.Builder
	err := s.summarize(&out, []report{{Seed: 7, Faults: map[string]int{"pause": 2}}, {Seed: 8, Broken: "I2: lost"}}, time.Second)
	if !errors.Is(err, errViolated) {
		t.Errorf("got %v, want errViolated", err)
	}
	for _, want := range []string{"I2: lost", "go run ./e2e/sim -seed 8 -time 1m0s -bug ack-early\n", "2 faults (pause 2)"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %q, want %q in it", out.String(), want)
		}
	}
}
