package spec

import "testing"

// What a bundle may say of its mounts is not thereby allowed to services.
func TestFlags_BundlesChangeNothingForOthers(t *testing.T) {
	if len(MountOptions()) == 0 {
		t.Fatal("a bundle has no options")
	}
	if _, ok := bundleFlags()["symfollow"]; !ok { // control
		t.Error("a bundle can't say symfollow")
	}
	if _, ok := flags()["symfollow"]; ok {
		t.Error("after that of a bundle, any configuration may say symfollow")
	}
}
