// Texts of speaking into the microphone.
export const LIVE = {
  tr: {
    "record.start": "Mikrofona konuş",
    "record.stop": "Bitir",
    "live.title": "Dinliyor",
    "live.asking": "Tarayıcınız mikrofon izni soruyor: izin verin.",
    "live.speak": "Konuşun; yazı burada belirir.",
    "live.silent": "Mikrofondan hiç ses gelmiyor: kapalı ya da sessize alınmış olabilir.",
    "live.long": "Yarım saat geçti: ses artık saklanmıyor, yazı sürüyor.",
    "live.finishing": "Son sözler yazılıyor…",
    "live.recording": "Son mikrofon kaydı (yalnız bu sayfada durur):",
    "error.microphone_denied": "Mikrofona izin verilmedi. Adres çubuğundaki site ayarlarından izin verip yeniden deneyin.",
    "error.microphone_missing": "Mikrofon bulunamadı. Bir mikrofon takıp yeniden deneyin.",
    "error.microphone_busy": "Mikrofon açılamadı: başka bir program kullanıyor olabilir. Onu kapatıp yeniden deneyin.",
    "error.microphone_insecure":
      "Tarayıcılar mikrofonu yalnız güvenli sayfalara açar. Bu sayfayı https:// ile ya da http://localhost üzerinden açın.",
    "error.microphone_failed": "Mikrofon açılamadı: {detail}",
    "error.microphone_lost": "Mikrofonun bağlantısı kesildi. O ana kadarki yazı duruyor.",
    "error.stream_lost": "Sunucuyla bağlantı koptu. O ana kadarki yazı duruyor.",
    "error.stream_late": "Sunucu son sözleri 15 saniyede yetiştiremedi. O ana kadarki yazı duruyor.",
    "error.stream_refused":
      "Sunucu canlı bağlantıyı açmadı. Arada bir vekil sunucu varsa WebSocket'e izin vermeli; dosya yüklemek yine de çalışır.",
  },
  en: {
    "record.start": "Speak",
    "record.stop": "Finish",
    "live.title": "Listening",
    "live.asking": "Your browser asks for the microphone: allow it.",
    "live.speak": "Speak, and the text appears here.",
    "live.silent": "No sound comes from the microphone: it may be off or muted.",
    "live.long": "Half an hour has passed: the sound is no longer kept, the text goes on.",
    "live.finishing": "Writing the last words…",
    "live.recording": "Last microphone recording (kept in this page only):",
    "error.microphone_denied": "The microphone was not allowed. Allow it in the site settings of the address bar and try again.",
    "error.microphone_missing": "There is no microphone. Connect one and try again.",
    "error.microphone_busy": "The microphone cannot be opened: another program may be using it. Close that and try again.",
    "error.microphone_insecure":
      "Browsers give the microphone to secure pages only. Open this page with https:// or as http://localhost.",
    "error.microphone_failed": "The microphone cannot be opened: {detail}",
    "error.microphone_lost": "The microphone was disconnected. The text so far is kept.",
    "error.stream_lost": "The connection to the server broke. The text so far is kept.",
    "error.stream_late": "The server did not finish the last words within 15 s. The text so far is kept.",
    "error.stream_refused":
      "The server did not open the live connection. A proxy on the way must allow WebSockets; uploading a file works all the same.",
  },
};
