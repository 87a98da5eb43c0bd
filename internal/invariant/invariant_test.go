package invariant

import (
	"errors"
	"testing"
)

func TestViolated_PanicsOrReturnsAnError(t *testing.T) {
	defer func() {
		err, _ := recover().(error)
		if Enabled != errors.Is(err, ErrViolated) {
			t.Errorf("Enabled is %v, but recovered %v", Enabled, err)
		}
	}()
	if err := Violated("I3", "index %d", 7); !errors.Is(err, ErrViolated) {
		t.Errorf("got %v, want ErrViolated", err)
	}
}
