package kubelet

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"npd-plugins/internal/distribution"
	"npd-plugins/internal/host"
)

// ownCertificate is what a kubelet without serverTLSBootstrap and tlsCertFile
// makes for itself at its first start: its certificate, and the one that signed
// it (cmd/kubelet/app/server.go, InitializeTLS). No key is in it. Distributions
// that make it themselves have it elsewhere, which counts as well.
const ownCertificate = "/var/lib/kubelet/pki/kubelet.crt"

// certificateError says why kubelet's certificate is not trusted.
type certificateError struct{ text string }

func (e *certificateError) Error() string { return e.text }

// trust is what makes a certificate kubelet's: one of the roots has signed it
// for one of the names, or it is the very one that kubelet has made for itself
// and keeps on this node.
type trust struct {
	roots  *x509.CertPool
	caFile string
	names  []string
	own    []*x509.Certificate
	ownErr error // why there is none
}

func (a *Access) trust(h *host.Root) (*trust, error) {
	t := &trust{roots: x509.NewCertPool(), caFile: a.caFile, names: a.names()}
	if a.caFile == "" {
		t.caFile = serviceAccount + "ca.crt"
		for _, path := range distribution.Every(func(d *distribution.Distribution) []string { return []string{d.Serving} }) {
			b, err := h.ReadFile(path)
			if path == ownCertificate {
				t.ownErr = err
			}
			if err == nil {
				t.own = append(t.own, certificates(b)...)
			}
		}
		if t.own != nil {
			t.ownErr = nil
		}
	}
	b, err := os.ReadFile(t.caFile)
	switch {
	case a.caFile == "" && errors.Is(err, fs.ErrNotExist): // kubelet's own may do
	case err != nil:
		return nil, fmt.Errorf("no certificates to check kubelet's with: %w: set --ca-file", err)
	case !t.roots.AppendCertsFromPEM(b):
		return nil, fmt.Errorf("no certificate in %s: set --ca-file", t.caFile)
	}
	return t, nil
}

// names are those that kubelet's certificate may have. One that the cluster
// signed has the addresses of the node, one that kubelet signed itself its
// host name, which is mostly the name of the node.
func (a *Access) names() []string {
	if a.serverName != "" {
		return []string{a.serverName}
	}
	address, _, _ := net.SplitHostPort(string(a.address))
	names := []string{address}
	if node := os.Getenv("NODE_NAME"); node != "" {
		names = append(names, node)
	}
	return names
}

// certificates are those in a PEM file that can be read.
func certificates(b []byte) (found []*x509.Certificate) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		if c, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, c)
		}
	}
	return found
}

// verify is tls.Config.VerifyConnection.
func (t *trust) verify(state tls.ConnectionState) error {
	leaf, now := state.PeerCertificates[0], time.Now()
	if slices.ContainsFunc(t.own, leaf.Equal) {
		if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
			return t.explain(leaf, x509.CertificateInvalidError{Cert: leaf, Reason: x509.Expired})
		}
		return nil
	}
	options := x509.VerifyOptions{Roots: t.roots, Intermediates: x509.NewCertPool(), CurrentTime: now}
	for _, c := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(options); err != nil {
		return t.explain(leaf, err)
	}
	for _, name := range t.names {
		if leaf.VerifyHostname(name) == nil {
			return nil
		}
	}
	return &certificateError{fmt.Sprintf("kubelet's certificate is not for %s but for %s: set --server-name", strings.Join(t.names, " or "), namesOf(leaf))}
}

// explain says which file or flag mends a certificate that is not trusted.
func (t *trust) explain(leaf *x509.Certificate, err error) error {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
		return &certificateError{fmt.Sprintf("kubelet's certificate is valid from %s to %s only: renew it, or set --insecure-skip-tls-verify",
			leaf.NotBefore.UTC().Format(time.DateOnly), leaf.NotAfter.UTC().Format(time.DateOnly))}
	}
	var unknown x509.UnknownAuthorityError
	if !errors.As(err, &unknown) {
		return &certificateError{fmt.Sprintf("kubelet's certificate is not trusted: %v: set --ca-file", err)}
	}
	text := "kubelet's certificate is signed by nobody in " + t.caFile
	switch {
	case t.ownErr != nil:
		text += fmt.Sprintf("; if it is the node's own, mount %s below --host-root, else set --ca-file (%v)", ownCertificate, t.ownErr)
	case len(t.own) > 0:
		text += ", nor is it the node's own, " + ownCertificate + ": set --ca-file"
	default:
		text += ": set --ca-file"
	}
	return &certificateError{text}
}

func namesOf(c *x509.Certificate) string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}
