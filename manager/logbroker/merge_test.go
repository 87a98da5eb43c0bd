package logbroker

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

func at(second int64) *api.LogLine {
	return &api.LogLine{Time: timestamppb.New(time.Unix(second, 0))}
}

func TestMerge_WaitsForWhoIsSilent(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tt := range []struct {
		hold time.Duration
		want time.Duration // until the only line comes; negative is never
	}{{-1, -1}, {100 * time.Millisecond, 70 * time.Millisecond}} {
		m := newMerge(tt.hold)
		m.open(0, now)
		m.open(1, now.Add(30*time.Millisecond))
		m.push(0, at(5))
		if line, _, wait := m.pop(now.Add(60 * time.Millisecond)); line != nil || wait != tt.want {
			t.Errorf("hold %s: got %v, wait %s, want %s", tt.hold, line, wait, tt.want)
		}
		m.end(1)
		if line, source, _ := m.pop(now.Add(60 * time.Millisecond)); line == nil || source != 0 {
			t.Errorf("hold %s: nobody is silent, but the line does not come", tt.hold)
		}
	}
}

func TestMerge_SilentForLongHoldsNobodyBack(t *testing.T) {
	now := time.Unix(1000, 0)
	m := newMerge(100 * time.Millisecond)
	m.open(0, now)
	m.open(1, now)
	m.push(0, at(5))
	if line, _, wait := m.pop(now.Add(100 * time.Millisecond)); line == nil {
		t.Errorf("the line still waits %s", wait)
	}
}

// TestMerge_SortsWhateverComes compares with sorting everything: sources that are each in order give a whole in order.
func TestMerge_SortsWhateverComes(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 0))
			sources := make([][]int64, 1+random.IntN(6))
			var want []int64
			for i := range sources {
				for range random.IntN(10) {
					sources[i] = append(sources[i], random.Int64N(20))
				}
				slices.Sort(sources[i])
				want = append(want, sources[i]...)
			}
			slices.Sort(want)
			if got := mergeAll(sources); !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		})
	}
}

// mergeAll plays the part of the read: each source shows its next line when its last one was taken.
func mergeAll(sources [][]int64) []int64 {
	m := newMerge(-1)
	now := time.Unix(0, 0)
	next := func(i int) {
		if len(sources[i]) == 0 {
			m.end(i)
			return
		}
		m.push(i, at(sources[i][0]))
		sources[i] = sources[i][1:]
	}
	for i := range sources {
		m.open(i, now)
	}
	for i := range sources {
		next(i)
	}
	var got []int64
	for {
		line, source, _ := m.pop(now)
		if line == nil {
			return got
		}
		got = append(got, line.GetTime().GetSeconds())
		next(source)
	}
}
