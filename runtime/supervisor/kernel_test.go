package supervisor

import (
	"errors"
	"strings"
	"testing"
)

func TestKernel_OldOnesAreRefusedByName(t *testing.T) {
	for release, serves := range map[string]bool{
		"5.14.0-70.el9": true, "6.1.0-18-amd64": true, "10.0.1": true, "5.13.19": false, "5.4.0-150-generic": false, "4.19.0": false,
	} {
		err := kernelServes(release)
		if serves != (err == nil) || !serves && (!errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), release) || !strings.Contains(err.Error(), "--runtime runc")) {
			t.Errorf("%s: %v", release, err)
		}
	}
	if err := kernelServes("x"); err == nil || errors.Is(err, ErrKernel) {
		t.Errorf("no version: %v", err)
	}
}
