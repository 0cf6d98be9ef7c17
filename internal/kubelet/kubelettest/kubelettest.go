// Package kubelettest is a kubelet for tests that need no node: a server with
// pages, certificates and a token of their making.
package kubelettest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"flag"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"npd-plugins/internal/kubelet"
)

// Token is the one that a Server takes.
const Token = "token-of-the-service-account"

// Names are what a certificate says.
type Names struct {
	DNS      []string
	IPs      []net.IP
	NotAfter time.Time // the zero time is in an hour
}

// Certificate is a certificate for the names with the one that has signed it,
// as kubelet makes them for itself. PEM has both and no key.
func Certificate(t testing.TB, names Names) (pair tls.Certificate, bundle []byte) {
	t.Helper()
	if names.NotAfter.IsZero() {
		names.NotAfter = time.Now().Add(time.Hour)
	}
	signer := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test-ca"}, NotBefore: names.NotAfter.Add(-48 * time.Hour),
		NotAfter: names.NotAfter, KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "test"}, NotBefore: signer.NotBefore, NotAfter: names.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, DNSNames: names.DNS, IPAddresses: names.IPs}
	signerKey, leafKey := key(t), key(t)
	for _, c := range []*x509.Certificate{leaf, signer} {
		der, err := x509.CreateCertificate(rand.Reader, c, signer, map[bool]any{true: &signerKey.PublicKey, false: &leafKey.PublicKey}[c.IsCA], signerKey)
		if err != nil {
			t.Fatal(err)
		}
		pair.Certificate = append(pair.Certificate, der)
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	pair.PrivateKey = leafKey
	return pair, bundle
}

func key(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// Server is a kubelet on the loopback interface.
type Server struct {
	// Address is its host and port.
	Address string
	// CAFile and TokenFile let a client in.
	CAFile, TokenFile string
}

// Serve serves with a certificate for 127.0.0.1 until the test ends. Who does
// not send the Token gets 401.
func Serve(t testing.TB, handler http.HandlerFunc) *Server {
	t.Helper()
	pair, bundle := Certificate(t, Names{IPs: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return ServeAs(t, pair, bundle, handler)
}

// ServeAs is Serve with that certificate. ca is what CAFile holds.
func ServeAs(t testing.TB, pair tls.Certificate, ca []byte, handler http.HandlerFunc) *Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+Token {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		handler(w, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	server.StartTLS()
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	dir := t.TempDir()
	s := &Server{server.Listener.Addr().String(), filepath.Join(dir, "ca.crt"), filepath.Join(dir, "token")}
	for path, content := range map[string]string{s.CAFile: string(ca), s.TokenFile: Token + "\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// Flags are the arguments with which a check asks the server.
func (s *Server) Flags() []string {
	return []string{"--kubelet=" + s.Address, "--ca-file=" + s.CAFile, "--token-file=" + s.TokenFile}
}

// Access is what the arguments come to.
func Access(t testing.TB, args ...string) *kubelet.Access {
	t.Helper()
	access := new(kubelet.Access)
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	access.Define(fs)
	if err := fs.Parse(args); err != nil {
		t.Fatal(err)
	}
	return access
}
