package gossipkeys_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/gossipkeys"
	"github.com/skep-io/skep/store/storetest"
)

// TestRotator_MakesAKeyEveryTwelveHours, whoever leads meanwhile.
func TestRotator_MakesAKeyEveryTwelveHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		r, err := gossipkeys.New(s)
		if err != nil {
			t.Fatal(err)
		}
		lead := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- r.Run(ctx) }()
			return func() {
				cancel()
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
		}
		stop := lead()
		synctest.Wait()
		storetest.Create(t, s, &api.Cluster{Id: "c"})
		synctest.Wait()
		began := time.Now()
		keys := func() [][]byte { return storetest.Get[*api.Cluster](t, s, "c").GetGossipKeys().GetKeys() }
		first := keys()
		if len(first) != 1 || len(first[0]) != 32 {
			t.Fatalf("a new swarm has %d keys", len(first))
		}
		before := first
		for round := range 5 {
			stop() // another leader goes on, and the period does not start afresh
			time.Sleep(6 * time.Hour)
			stop = lead()
			time.Sleep(time.Until(began.Add(time.Duration(round+1)*12*time.Hour - time.Minute)))
			if got := keys(); len(got) != len(before) || string(got[0]) != string(before[0]) {
				t.Fatalf("round %d: a key came too early", round)
			}
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			got := keys()
			if want := min(round+2, 3); len(got) != want || string(got[0]) == string(before[0]) || string(got[1]) != string(before[0]) {
				t.Fatalf("round %d: %d keys, want %d, a new one before those of before", round, len(got), want)
			}
			before = got
		}
		stop()
	})
}
