package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/skep-io/skep/agent/secret"
	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/ca"
	"github.com/skep-io/skep/ca/catest"
	"github.com/skep-io/skep/internal/fault"
)

// A machine that was removed from the swarm, or stolen, goes on no longer than its certificate does, and no longer than until it hears of it.
func TestAgent_StartsNothingAloneWithoutAValidCertificateOrAfterARefusal(t *testing.T) {
	id := ca.NewIdentity(catest.Member(t, catest.NewRegistry(t), api.Role_ROLE_WORKER))
	leaf := id.Current().Chain()[0]
	a := &Agent{cfg: Config{Identity: id}, secrets: &secret.Holder{}}
	if err := a.newVault(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	for now, want := range map[time.Time]error{
		leaf.NotBefore: nil, leaf.NotAfter.Add(-time.Second): nil,
		leaf.NotAfter: errNotValid, leaf.NotBefore.Add(-time.Second): errNotValid, // a clock that was reset
	} {
		if err := a.mayStartAlone(now); !errors.Is(err, want) {
			t.Errorf("at %s, valid from %s to %s: %v", now, leaf.NotBefore, leaf.NotAfter, err)
		}
	}
	now := leaf.NotBefore
	for _, err := range []error{errors.New("no route"), fault.New(fault.Unavailable, "no leader")} {
		a.heardRefusal(fmt.Errorf("register: %w", err))
		if err := a.mayStartAlone(now); err != nil {
			t.Errorf("after %v", err)
		}
	}
	a.heardRefusal(fmt.Errorf("register: %w", fault.New(fault.PermissionDenied, "it was removed")))
	if err := a.mayStartAlone(now); !errors.Is(err, errRefused) {
		t.Errorf("after a refusal: %v", err)
	}
}
