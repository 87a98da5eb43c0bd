package control

import (
	"strings"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/fault"
	"github.com/skep-io/skep/store"
)

// An image can be meant by the first hex digits of its manifest's sha256, or by all of them: lists show the least that count,
// and fewer are more likely a name.
const (
	minImageID = 12
	maxImageID = 64
)

// sha256Prefix begins the digest of a manifest.
const sha256Prefix = "sha256:"

// imageID returns the hex digits in HEX or sha256:HEX, also after a client has normalised them like a name, or "".
func imageID(image string) string {
	short := strings.TrimPrefix(image, "docker.io/library/")
	hex, ok := strings.CutPrefix(short, sha256Prefix)
	if !ok {
		hex = strings.TrimSuffix(short, ":latest")
	}
	if len(hex) < minImageID || len(hex) > maxImageID || strings.Trim(hex, "0123456789abcdef") != "" {
		return ""
	}
	return hex
}

// isDigest reports whether an image is pinned by a whole digest alone, as that of an image without a name is.
func isDigest(image string) bool {
	return image == sha256Prefix+imageID(image) && len(image) == len(sha256Prefix)+maxImageID
}

// pinID returns the digest of the one image on ready nodes whose digest begins with hex digits.
func pinID(tx store.ReadTx, hex string) (string, error) {
	images, err := readyImages(tx)
	if err != nil {
		return "", err
	}
	found := ""
	for _, image := range images {
		digest := image.GetDigest()
		switch {
		case !strings.HasPrefix(digest, sha256Prefix+hex) || digest == found:
		case found != "":
			return "", fault.New(fault.Invalid, "image %s is ambiguous: the digests of several images begin so, give more digits or NAME:TAG", hex)
		default:
			found = digest
		}
	}
	if found == "" {
		return "", fault.Wrap(fault.NotFound, &missingImageError{hex})
	}
	return found, nil
}

// readyImages returns the images of all nodes that are ready, those that several have several times.
func readyImages(tx store.ReadTx) ([]*api.ImageSummary, error) {
	nodes, err := store.List[*api.Node](tx)
	if err != nil {
		return nil, err
	}
	var images []*api.ImageSummary
	for _, node := range nodes {
		if node.GetStatus().GetState() == api.NodeState_NODE_STATE_READY {
			images = append(images, node.GetDescription().GetImages()...)
		}
	}
	return images, nil
}
