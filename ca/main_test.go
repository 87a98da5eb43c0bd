package ca_test

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"

	"github.com/skep-io/skep/ca"
)

func TestMain(m *testing.M) {
	ca.LogTo(slog.New(slog.DiscardHandler))
	goleak.VerifyTestMain(m)
}
