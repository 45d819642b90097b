# A Homebrew formula. `brew install --build-from-source ./packaging/gemini-pool.rb` from a release's tarball, whose
# address and checksum the release fills in; requirements are pinned with hashes in requirements/run.txt.
class GeminiPool < Formula
  desc "Background daemon that shares your ways into Gemini with all your tools"
  homepage "https://example.invalid/gemini-pool"
  url "https://example.invalid/gemini-pool-0.1.0.tar.gz"
  version "0.1.0"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "MIT"

  depends_on "python@3.13"

  def install
    python = Formula["python@3.13"].opt_libexec/"bin/python"
    system python, "-m", "venv", libexec
    system libexec/"bin/python", "-m", "pip", "install", "--require-hashes", "-r", "requirements/run.txt"
    system libexec/"bin/python", "-m", "pip", "install", "--no-deps", "."
    bin.install_symlink libexec/"bin/gemini-pool"
    system libexec/"bin/python", "packaging/manpages.py", buildpath/"man"
    man1.install Dir["man/*.1"]
    generate_completions_from_executable(bin/"gemini-pool", "completions")
  end

  # `gemini-pool service install` writes the LaunchAgent, with its sockets; `brew services` knows no sockets.
  def caveats
    <<~EOS
      To run the daemon in the background:
        gemini-pool service install
    EOS
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/gemini-pool --version")
  end
end
