// Package boot tells one run of the machine's kernel from another.
//
// It says nothing of time. Concurrency: ID may be called by anybody at any time.
package boot

import (
	"fmt"
	"os"
	"strings"
)

// ID names the running boot of the machine: the kernel makes it anew each time (random(4), boot_id).
func ID() (string, error) {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("identify the boot: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}
