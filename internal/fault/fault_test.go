package fault_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/skep-io/skep/internal/fault"
)

func TestStatus_RoundTripsKindAndText(t *testing.T) {
	for kind := fault.NotFound; kind <= fault.Unavailable; kind++ {
		t.Run(kind.String(), func(t *testing.T) {
			sent := fmt.Errorf("remove secret: %w", fault.New(kind, "secret %q is in use", "db"))
			if kind == fault.NotLeader {
				sent = fault.NewNotLeader("10.0.0.1:2377")
			}
			got := fault.FromStatus(fault.Status(sent))
			if fault.KindOf(got) != kind {
				t.Errorf("kind: got %v, want %v", fault.KindOf(got), kind)
			}
			if got.Error() != sent.Error() {
				t.Errorf("text: got %q, want %q", got, sent)
			}
			if fault.Leader(got) != fault.Leader(sent) {
				t.Errorf("leader: got %q, want %q", fault.Leader(got), fault.Leader(sent))
			}
		})
	}
}

func TestStatus_KeepsInternalTextOnTheServer(t *testing.T) {
	for _, err := range []error{errors.New("open /secret/path"), fault.New(fault.Internal, "key %s", "/secret/path")} {
		got := fault.FromStatus(fault.Status(err))
		if fault.KindOf(got) != fault.Internal || strings.Contains(got.Error(), "secret") {
			t.Errorf("got %v %q, want an internal error without its text", fault.KindOf(got), got)
		}
	}
}

func TestStatus_ContextEndsAreUnavailable(t *testing.T) {
	for _, err := range []error{context.Canceled, context.DeadlineExceeded} {
		if got := fault.KindOf(fault.FromStatus(fault.Status(err))); got != fault.Unavailable {
			t.Errorf("%v: got %v, want unavailable", err, got)
		}
	}
	if fault.Status(nil) != nil || fault.FromStatus(nil) != nil || fault.Wrap(fault.Invalid, nil) != nil {
		t.Error("nil became an error")
	}
}
