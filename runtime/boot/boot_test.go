package boot

import "testing"

func TestID_IsTheSameUntilTheMachineIsRestarted(t *testing.T) {
	first, err := ID()
	if err != nil {
		t.Fatal(err)
	}
	if second, err := ID(); err != nil || second != first || len(first) != 36 {
		t.Errorf("first %q, then %q, %v", first, second, err)
	}
}
