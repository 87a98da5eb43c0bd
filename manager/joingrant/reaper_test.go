package joingrant_test

import (
	"context"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/manager/joingrant"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

func TestStep(t *testing.T) {
	end := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	due := end.Add(24 * time.Hour)
	grants := []joingrant.Grant{{ID: "a", Expires: end}, {ID: "b", Expires: end, Waiting: true}, {ID: "c", Expires: end.Add(time.Hour)}}
	for _, c := range []struct {
		now    time.Time
		grants []joingrant.Grant
		remove []string
		next   time.Time
	}{
		{end, nil, nil, time.Time{}},
		{end, grants, nil, due},
		{due.Add(-1), grants, nil, due},
		{due, grants, []string{"a"}, due.Add(time.Hour)},
		{due.Add(2 * time.Hour), grants, []string{"a", "c"}, due.Add(3 * time.Hour)},
		{due.Add(2 * time.Hour), grants[:1], []string{"a"}, time.Time{}},
	} {
		remove, next := joingrant.Step(c.now, c.grants)
		if !slices.Equal(remove, c.remove) || !next.Equal(c.next) {
			t.Errorf("at %v: %v, %v; want %v, %v", c.now, remove, next, c.remove, c.next)
		}
	}
}

func TestReaper_RemovesWhatEndedUnlessSomebodyWaitsWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.New(t)
		r, err := joingrant.New(joingrant.Config{Store: s, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		synctest.Wait()
		ends := timestamppb.New(time.Now().Add(time.Hour))
		storetest.Create(t, s,
			&api.JoinGrant{Id: "short", ExpiresAt: ends}, &api.JoinGrant{Id: "long", ExpiresAt: timestamppb.New(time.Now().Add(90 * 24 * time.Hour))},
			&api.JoinGrant{Id: "held", ExpiresAt: ends, Uses: []*api.JoinGrantUse{{NodeId: "gone"}, {NodeId: "n1"}}},
			&api.Node{Id: "n1", Approval: &api.Approval{State: api.ApprovalState_APPROVAL_STATE_PENDING}})
		for _, step := range []struct {
			wait time.Duration
			want []string
		}{
			{24 * time.Hour, []string{"held", "long", "short"}}, {time.Hour, []string{"held", "long"}}, {48 * time.Hour, []string{"held", "long"}},
		} {
			<-time.After(step.wait)
			expect(t, s, step.want...)
		}
		decided := proto.CloneOf(storetest.Get[*api.Node](t, s, "n1"))
		decided.Approval.State = api.ApprovalState_APPROVAL_STATE_APPROVED
		if err := s.Update(t.Context(), "", func(tx store.Tx) error { return tx.Update(decided) }); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Hour)
		expect(t, s, "long")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func expect(t *testing.T, s *store.Store, want ...string) {
	t.Helper()
	synctest.Wait()
	var got []string
	for _, g := range storetest.List[*api.JoinGrant](t, s) {
		got = append(got, g.GetId())
	}
	if !slices.Equal(got, want) {
		t.Errorf("grants %v, want %v", got, want)
	}
}

func TestNew_WantsEverything(t *testing.T) {
	if _, err := joingrant.New(joingrant.Config{}); err == nil {
		t.Error("a reaper of nothing")
	}
}
