package lsm

import (
	_ "embed" // for the profile
	"errors"
	"fmt"
	"os"
	"strings"
)

// DefaultProfile is the name of the AppArmor profile that LoadProfile gives to the kernel.
const DefaultProfile = "skep-default"

//go:embed default.bin
var compiled []byte

// Files of the kernel.
const (
	appArmorEnabled  = "/sys/module/apparmor/parameters/enabled"
	appArmorReplace  = "/sys/kernel/security/apparmor/.replace"
	appArmorProfiles = "/sys/kernel/security/apparmor/profiles"
)

// AppArmor reports whether the kernel has AppArmor, and it is on.
func AppArmor() bool {
	text, err := os.ReadFile(appArmorEnabled)
	return err == nil && strings.TrimSpace(string(text)) == "Y"
}

// LoadProfile gives AppArmor the default profile, or a newer version of it; processes that it confines already have it at once. It must
// be called by root, where AppArmor is on.
func LoadProfile() error {
	f, err := os.OpenFile(appArmorReplace, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("load the AppArmor profile %s: %w: is securityfs mounted at /sys/kernel/security?", DefaultProfile, err)
	}
	_, err = f.Write(compiled) // in one write, as the kernel wants it
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("load the AppArmor profile %s: %w", DefaultProfile, err)
	}
	return nil
}

// ProfileLoaded reports whether the kernel has the default profile, and enforces it.
func ProfileLoaded() bool {
	text, err := os.ReadFile(appArmorProfiles)
	return err == nil && strings.Contains("\n"+string(text), "\n"+DefaultProfile+" (enforce)\n")
}
