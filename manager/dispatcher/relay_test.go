package dispatcher_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/manager/dispatcher"
	"github.com/skep-io/skep/store"
)

func TestRelay_WhatPassesByIsNoDefect(t *testing.T) {
	for err, want := range map[error]fault.Kind{
		&store.NotLeaderError{LeaderAddr: "m2:2377"}: fault.NotLeader, store.ErrConflict: fault.Unavailable, store.ErrStopped: fault.Unavailable,
		store.ErrBusy: fault.Unavailable, errors.New("disk on fire"): fault.Internal,
	} {
		if got := fault.KindOf(dispatcher.RelayFault(fmt.Errorf("absorb: %w", err))); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
